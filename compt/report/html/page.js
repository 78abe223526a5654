"use strict";
(async () => {
  const plots = [];
  const items = JSON.parse(document.getElementById("items").textContent);
  for (const [id, item] of Object.entries(items)) {
    const views = [...(await Bokeh.embed.embed_item(item, id))];
    plots.push(...views.filter((view) => view.model.type === "Figure"));
  }

  // Bokeh paints in the page's colours, but does not see when they change.
  const repaint = () =>
    plots.forEach((plot) => {
      plot.request_repaint();
      plot.repaint(); // at once: a browser that prints does not wait
    });
  const dark = document.getElementById("dark");
  const choice = document.getElementById("theme");
  const media = { system: dark.media, light: "not all", dark: "screen" };
  const choose = (theme) => {
    dark.media = media[theme];
    repaint();
  };
  choice.addEventListener("change", () => choose(choice.value));
  matchMedia(media.system).addEventListener("change", repaint);
  addEventListener("beforeprint", () => choose("light"));
  addEventListener("afterprint", () => choose(choice.value));

  const boxes = [...document.querySelectorAll("[data-shows]")];
  const show = () => {
    const hidden = boxes.filter((box) => !box.checked).map((box) => box.dataset.shows);
    for (const plot of plots) {
      for (const renderer of plot.model.renderers) {
        renderer.visible = !renderer.tags.some((tag) => hidden.includes(tag));
      }
    }
  };
  boxes.forEach((box) => box.addEventListener("change", show));
  document.body.dataset.drawn = "yes";
})();
