// Brings the widgets of a notebook's page to life from the state saved in it, with this site's own copies of their code.
// html-manager has such a loader too; but that one compiles a JSON schema with eval, which the site's policy forbids, and
// asks a CDN for what it does not know.
(() => {
  const files = new URL(`${document.documentElement.dataset.content_root ?? "./"}_static/third_party/`, document.baseURI).href;
  const need = (name) => new Promise((resolve, reject) => window.requirejs([name], resolve, reject));
  const blocks = (kind) => [...document.querySelectorAll(`script[type="application/vnd.jupyter.widget-${kind}+json"]`)];

  // What ipywidgets leaves out for screen readers: words for its pictures, which their outputs have, and names for sliders.
  function name(box, models) {
    const outputs = models.flatMap((model) => model.get("outputs") ?? []).filter((output) => output.data?.["image/png"]);
    for (const picture of box.querySelectorAll("img:not([alt])")) {
      const own = outputs.find((output) => picture.src.endsWith(output.data["image/png"].replaceAll("\n", "")));
      picture.alt = own?.metadata?.["image/png"]?.alt ?? own?.data["text/plain"] ?? "";
    }
    for (const slider of box.querySelectorAll("[role=slider]:not([aria-label])")) {
      slider.setAttribute("aria-label", slider.closest(".widget-slider")?.querySelector(".widget-label")?.textContent || "slider");
    }
  }

  async function show() {
    const { HTMLManager } = await need("@jupyter-widgets/html-manager");
    const manager = new HTMLManager({ loader: need });
    for (const block of blocks("state")) {
      const models = await manager.set_state(JSON.parse(block.textContent));
      for (const place of blocks("view")) {
        const { model_id: id } = JSON.parse(place.textContent);
        const model = models.find((candidate) => candidate.model_id === id);
        if (!model) continue;
        const box = document.createElement("div");
        box.className = "widget-subarea";
        place.before(box);
        // An output draws its pictures some time after its view is there.
        new MutationObserver(() => name(box, models)).observe(box, { childList: true, subtree: true });
        await manager.display_view(await manager.create_view(model), box);
      }
    }
    document.documentElement.dataset.widgets = "ready";
  }

  window.requirejs.config({ paths: { anywidget: `${files}anywidget` }, waitSeconds: 60 });
  window.addEventListener("load", () => {
    // ipywidgets asks MathJax 2 to typeset labels; this site has MathJax 3, which knows another name for that.
    window.MathJax ??= {};
    window.MathJax.Hub ??= {
      Queue: ([what, , node]) => { if (what === "Typeset") window.MathJax.typesetPromise?.(node ? [node] : undefined); },
      Config: () => {},
    };
    show();
  });
})();
