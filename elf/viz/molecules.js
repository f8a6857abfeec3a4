// The script in a molecule's view: 3Dmol.js's interactive picture over the still one, where that library and WebGL are to
// be had. A page may bring 3Dmol.js itself as `window.$3Dmolpromise` (the book does); else it comes from `address`, in which
// "{labextensions}" is what JupyterLab says. Python puts this function's text into the output, and calls it there.
(id, address, fill) => {
  const load = () => {
    if (window.$3Dmolpromise) return window.$3Dmolpromise;
    if (window.$3Dmol) return Promise.resolve();
    const page = document.getElementById("jupyter-config-data");
    const lab = page ? JSON.parse(page.textContent).fullLabextensionsUrl : null;
    if (address.includes("{labextensions}") && !lab) return Promise.reject();
    return window.$3Dmolpromise = new Promise((resolve, reject) => {
      const saved = [window.exports, window.module, window.define];
      window.exports = window.module = window.define = undefined; // else it registers with requirejs instead of the page
      const restore = () => { [window.exports, window.module, window.define] = saved; };
      const tag = document.createElement("script");
      tag.src = address.replace("{labextensions}", lab);
      tag.onload = () => { restore(); resolve(); };
      tag.onerror = () => { restore(); reject(); };
      document.head.appendChild(tag);
    });
  };
  const host = document.getElementById(id);
  load().then(() => {
    const stage = document.createElement("div");
    stage.style.cssText = "position:absolute;inset:0";
    host.appendChild(stage);
    try {
      stage.id = "3dmolviewer_UNIQUEID"; // by this name py3Dmol's commands ask for their place
      fill();
      host.firstElementChild.style.visibility = "hidden";
    } catch (error) { stage.remove(); }
    stage.id = `stage_${id}`;
  }, () => {});
}
