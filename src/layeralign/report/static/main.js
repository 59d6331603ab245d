/* Puts everything in its place; what a section needs and the data lack was left out of the page. */

const SECTIONS = { curve, categories, tradeoff, controls, changes, training, explorer };
for (const [name, fill] of Object.entries(SECTIONS)) {
  const place = document.querySelector(`[data-fill="${name}"]`);
  if (place) fill(place);
}

// A long page folds: on a small screen all but the finding, the exits and what was not measured.
if (innerWidth < 640) for (const one of document.querySelectorAll("details[data-long]")) one.open = false;
const unfold = () => {
  const section = document.getElementById(location.hash.slice(1));
  const fold = section?.querySelector("details.fold");
  if (fold && !fold.open) { fold.open = true; section.scrollIntoView(); }
};
addEventListener("hashchange", unfold);
unfold();

const dark = matchMedia("(prefers-color-scheme: dark)");
const toggle = document.getElementById("theme");
const isDark = () => (document.documentElement.dataset.theme ?? (dark.matches ? "dark" : "light")) === "dark";
const tell = () => toggle.setAttribute("aria-pressed", String(isDark()));
toggle.hidden = false;
toggle.addEventListener("click", () => {
  document.documentElement.dataset.theme = isDark() ? "light" : "dark";
  tell();
});
dark.addEventListener("change", tell);
tell();

// On paper the tables of the page itself are open; those of the charts would be too wide.
let closed = [];
addEventListener("beforeprint", () => {
  closed = [...document.querySelectorAll("details:not([open])")].filter((one) => one.dataset.screen === undefined);
  for (const one of closed) one.open = true;
});
addEventListener("afterprint", () => { for (const one of closed) one.open = false; });
