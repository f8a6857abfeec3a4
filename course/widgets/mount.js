// For plain pages: <script type="module" src="elf/mount.js"></script> brings every widget on the page to life, each where
// it stands as <div data-elf-widget="playground"><script type="application/json">{...its state...}</script></div>.
// `course.widgets.web.place(widget)` writes such a div. No kernel, no widget manager, no inline script, no eval.

export const MODULES = ["playground", "board", "frames", "trajectory", "dashboard", "descent", "bath", "knobs", "guess"];

export async function mountAll(page = document) {
  for (const place of page.querySelectorAll("[data-elf-widget]:not([data-elf-mounted])")) {
    const name = place.dataset.elfWidget;
    if (!MODULES.includes(name)) throw new Error(`no widget is called ${name}; there are ${MODULES.join(", ")}`);
    place.dataset.elfMounted = "";
    const state = place.querySelector('script[type="application/json"]');
    const box = document.createElement("div");
    place.replaceChildren(box);
    try {
      const { mount } = await import(`./${name}.js`);
      place.widget = mount(box, state ? JSON.parse(state.textContent) : {});
    } catch (error) {
      // One figure that does not load leaves the others alone, and words where it should be.
      console.error(`${name} did not load:`, error);
      box.setAttribute("role", "alert");
      box.textContent = "This figure did not load. Load the page again.";
    }
  }
}

await mountAll();
