// Gives the theme's controls names that agree with what stands on them: for screen readers, and for people who speak commands.
document.addEventListener("DOMContentLoaded", () => {
  for (const button of document.querySelectorAll("button.search-button-field")) button.removeAttribute("aria-label");
  for (const switcher of document.querySelectorAll("button.theme-switch-button")) {
    const hush = () => {
      for (const icon of switcher.querySelectorAll("[data-mode]")) {
        icon.removeAttribute("title");
        icon.querySelector("title")?.remove();
        icon.setAttribute("aria-hidden", "true");
      }
    };
    hush();
    // Font Awesome replaces the icons by drawings when it gets to it, and may have read their titles before.
    new MutationObserver(hush).observe(switcher, { childList: true, subtree: true });
  }
  for (const summary of document.querySelectorAll("details.hide > summary[aria-label]")) summary.removeAttribute("aria-label");
  // On a phone a figure is moved sideways within its frame (book.css): by keyboard, too.
  for (const picture of matchMedia("(max-width: 40rem)").matches ? document.querySelectorAll(".cell_output > img, .cell_output > a > img") : []) {
    const names = { tabindex: "0", role: "group", "aria-label": "Figure" };
    for (const name in names) picture.closest(".cell_output").setAttribute(name, names[name]);
  }
  for (const toggle of document.querySelectorAll(".bd-sidenav summary")) {
    const page = toggle.closest("li")?.querySelector("a")?.textContent.trim();
    toggle.setAttribute("aria-label", `Pages of ${page ?? "this part"}`);
  }
});
