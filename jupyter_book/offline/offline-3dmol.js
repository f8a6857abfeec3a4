// Whatever address a notebook's output names for 3Dmol.js, this site's own copy is loaded instead, when it is first needed.
(() => {
  const address = new URL(`${document.documentElement.dataset.content_root ?? "./"}_static/third_party/3Dmol-min.js`, document.baseURI).href;
  let loading;
  const load = () => (loading ??= new Promise((resolve, reject) => {
    const saved = [window.exports, window.module, window.define];
    window.exports = window.module = window.define = undefined; // else 3Dmol registers with requirejs instead of the page
    const restore = () => { [window.exports, window.module, window.define] = saved; };
    const tag = document.createElement("script");
    tag.src = address;
    tag.onload = () => { restore(); resolve(); };
    tag.onerror = () => { restore(); reject(new Error("3Dmol.js did not load")); };
    document.head.appendChild(tag);
  }));
  window.$3Dmolpromise = { then: (done, failed) => load().then(done, failed), catch: (failed) => load().catch(failed) };
})();
