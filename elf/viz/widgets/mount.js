// For plain pages: <script type="module" src="elf/mount.js"></script> brings every widget on the page to life, each where
// it stands as <div data-elf-widget="playground"><script type="application/json">{...its state...}</script></div>.
// `elf.viz.widgets.web.place(widget)` writes such a div. No kernel, no widget manager, no inline script, no eval.

export const MODULES = ["playground", "board", "frames", "trajectory", "dashboard"];

export async function mountAll(page = document) {
  for (const place of page.querySelectorAll("[data-elf-widget]:not([data-elf-mounted])")) {
    const name = place.dataset.elfWidget;
    if (!MODULES.includes(name)) throw new Error(`no widget is called ${name}; there are ${MODULES.join(", ")}`);
    place.dataset.elfMounted = "";
    const state = place.querySelector('script[type="application/json"]');
    const { mount } = await import(`./${name}.js`);
    const box = document.createElement("div");
    place.replaceChildren(box);
    place.widget = mount(box, state ? JSON.parse(state.textContent) : {});
  }
}

await mountAll();
