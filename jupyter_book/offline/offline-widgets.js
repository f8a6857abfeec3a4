// Tells requirejs where this site keeps the widgets' code, relative to the page, so that no page asks a CDN.
(() => {
  const files = new URL(`${document.documentElement.dataset.content_root ?? "./"}_static/third_party/`, document.baseURI).href;
  window.requirejs.config({
    paths: { anywidget: `${files}anywidget`, "@jupyter-widgets/html-manager/dist": `${files}html-manager/dist` },
    waitSeconds: 60,
  });
  // ipywidgets asks MathJax 2 to typeset labels; this site has MathJax 3, which knows another name for that.
  document.addEventListener("DOMContentLoaded", () => {
    window.MathJax ??= {};
    window.MathJax.Hub ??= {
      Queue: ([what, , node]) => { if (what === "Typeset") window.MathJax.typesetPromise?.(node ? [node] : undefined); },
      Config: () => {},
    };
  });
})();
