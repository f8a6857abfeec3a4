// Brings the widgets of a notebook's page to life from the state saved in it, which holds their code too.
// html-manager has such a loader too; but that one compiles a JSON schema with eval, which the site's policy forbids, and
// asks a CDN for what it does not know.
(() => {
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

  // anywidget's own model counts itself dead when its module is not there within two seconds, which a page that is busy
  // with its formulas on a slow machine exceeds. Without a kernel there is nothing to wait for: import, then draw.
  const anywidget = ({ DOMWidgetModel, DOMWidgetView }) => ({
    AnyModel: DOMWidgetModel,
    AnyView: class extends DOMWidgetView {
      async render() {
        const address = URL.createObjectURL(new Blob([this.model.get("_esm")], { type: "text/javascript" }));
        try {
          const { default: widget } = await import(address);
          this.clean = widget.render({ model: this.model, el: this.el });
        } finally { URL.revokeObjectURL(address); }
      }
      remove() { this.clean?.(); super.remove(); }
    },
  });

  // Words in place of a figure that did not come: a gap would tell nobody that something is missing.
  function sorry(place, error) {
    console.error("a figure did not load:", error);
    const box = document.createElement("p");
    box.className = "elf-missing";
    box.setAttribute("role", "alert");
    box.textContent = "This figure did not load. ";
    const again = document.createElement("button");
    again.textContent = "Load the page again";
    again.addEventListener("click", () => location.reload());
    box.append(again);
    place.before(box);
  }

  async function draw(manager, models, place) {
    const { model_id: id } = JSON.parse(place.textContent);
    const model = models.find((candidate) => candidate.model_id === id);
    if (!model) return;
    const box = document.createElement("div");
    box.className = "widget-subarea";
    place.before(box);
    // An output draws its pictures some time after its view is there.
    new MutationObserver(() => name(box, models)).observe(box, { childList: true, subtree: true });
    await manager.display_view(await manager.create_view(model), box);
  }

  async function show() {
    const places = blocks("view");
    if (!places.length) return;
    try {
      window.define("anywidget", ["@jupyter-widgets/base"], anywidget);
      const { HTMLManager } = await need("@jupyter-widgets/html-manager");
      const manager = new HTMLManager({ loader: need });
      const models = [];
      for (const block of blocks("state")) models.push(...(await manager.set_state(JSON.parse(block.textContent))));
      for (const place of places) await draw(manager, models, place).catch((error) => sorry(place, error));
    } catch (error) {
      for (const place of places) sorry(place, error);
    }
    document.documentElement.dataset.widgets = "ready";
  }

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
