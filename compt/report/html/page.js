"use strict";

// Fingers and keys have no tips: what a point says is written below its plot, and the point ringed.
const NEAR = 32; // pixels from where a finger is to what it means
const STEP = 6; // pixels between two points that keys stop at

function letRead(view, plot) {
  const reading = plot.parentElement.querySelector(`[data-reads="${plot.id}"]`);
  const said = reading.querySelector("output");
  const ring = view.model.renderers.find(({ name }) => name === "reading").data_source;
  const { replace_placeholders } = Bokeh.require("core/util/templating");
  let current = null;

  const shown = () =>
    view.model.toolbar.tools
      .filter(({ type }) => type === "HoverTool")
      .flatMap((tool) => tool.renderers.filter(({ visible }) => visible).map((one) => [tool, one]))
      .map(([tool, renderer]) => {
        const { data_source: source, name } = renderer;
        const say = (index) =>
          tool.tooltips
            .map(([, tip]) => replace_placeholders(tip, source, index, {}, { name }))
            .join("; ");
        const points = [...source.data.x].map((x, index) => {
          const y = source.data.y?.[index];
          const sx = view.frame.x_scale.compute(x);
          // A mark of growth is upright, and at every height.
          return { renderer, index, x, y, sx, sy: y === undefined ? null : view.frame.y_scale.compute(y) };
        });
        const { left, right, top, bottom } = view.frame.bbox;
        const isInside = ({ sx, sy }) =>
          sx >= left - 1 && sx <= right + 1 && (sy === null || (sy >= top - 1 && sy <= bottom + 1));
        return { say, isLine: renderer.glyph.type === "Line", points: points.filter(isInside) };
      });

  const read = (curve, point) => {
    current = point;
    said.textContent = curve.say(point.index);
    ring.data = point.sy === null ? { x: [], y: [] } : { x: [point.x], y: [point.y] };
  };

  const distance = (curve, at, x, y) => {
    const a = curve.points[at];
    const b = curve.isLine ? curve.points[at + 1] ?? a : a;
    const [ay, by] = [a.sy ?? y, b.sy ?? y];
    const length = (b.sx - a.sx) ** 2 + (by - ay) ** 2;
    const along = length ? ((x - a.sx) * (b.sx - a.sx) + (y - ay) * (by - ay)) / length : 0;
    const share = Math.min(1, Math.max(0, along));
    const far = Math.hypot(a.sx + share * (b.sx - a.sx) - x, ay + share * (by - ay) - y);
    return { far, point: share > 0.5 ? b : a };
  };

  plot.addEventListener("click", ({ clientX, clientY }) => {
    const box = view.el.getBoundingClientRect();
    const [x, y] = [clientX - box.x, clientY - box.y];
    let best = { far: NEAR };
    for (const curve of shown()) {
      for (let at = 0; at < curve.points.length; at += 1) {
        const { far, point } = distance(curve, at, x, y);
        if (far < best.far) best = { far, curve, point };
      }
    }
    if (best.point) read(best.curve, best.point);
  });

  const step = (by) => {
    const all = shown().flatMap((curve) => curve.points.map((point) => ({ curve, point })));
    if (!all.length) return;
    const isCurrent = ({ point }) =>
      point.renderer === current?.renderer && point.index === current?.index;
    const isFar = ({ point }) =>
      point.renderer !== current?.renderer || Math.abs(point.sx - current.sx) >= STEP;
    let at = all.findIndex(isCurrent);
    if (at < 0) at = by > 0 ? 0 : all.length - 1;
    else do at = (at + by + all.length) % all.length; while (!isFar(all[at]) && !isCurrent(all[at]));
    read(all[at].curve, all[at].point);
  };
  for (const button of reading.querySelectorAll("button")) {
    button.addEventListener("click", () => step(Number(button.value)));
  }
  reading.hidden = false;
}

(async () => {
  const plots = [];
  const items = JSON.parse(document.getElementById("items").textContent);
  for (const [id, item] of Object.entries(items)) {
    const views = [...(await Bokeh.embed.embed_item(item, id))];
    const view = views.find(({ model }) => model.type === "Figure");
    plots.push(view);
    letRead(view, document.getElementById(id));
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
