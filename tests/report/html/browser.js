// Opens a page in headless Chromium, in both themes and at two widths, and prints what it did as
// JSON. node browser.js PLAYWRIGHT CHROMIUM PAGE FOLDER
"use strict";
const [playwright, chromium, page_file, folder] = process.argv.slice(2);
const SWITCHES = [
  "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
  "--disable-background-networking", "--disable-component-update", "--disable-sync",
];

// How many pixels of each plot are painted, and the mean lightness of those of its axes' labels.
const plots = () =>
  [...document.querySelectorAll(".plot")].map((plot) => {
    const all = [];
    const walk = (element) => {
      if (element.tagName === "CANVAS") all.push(element);
      for (const child of [...(element.shadowRoot?.children ?? []), ...element.children]) walk(child);
    };
    walk(plot);
    let painted = 0, light = 0;
    for (const canvas of all) {
      const { width, height } = canvas;
      if (!width || !height) continue;
      const { data } = canvas.getContext("2d").getImageData(0, 0, width, height);
      for (let i = 0; i < data.length; i += 4) {
        if (data[i + 3] > 200) { painted += 1; light += (data[i] + data[i + 1] + data[i + 2]) / 3; }
      }
    }
    return { id: plot.id, painted, lightness: light / (painted || 1) };
  });

const overflow = () => {
  const { scrollWidth, clientWidth } = document.documentElement;
  return scrollWidth - clientWidth;
};

const focused = () => {
  let element = document.activeElement;
  while (element.shadowRoot?.activeElement) element = element.shadowRoot.activeElement;
  const { tagName, id, title, dataset } = element;
  return [tagName, id || title || dataset.shows || element.textContent.trim()].join(" ");
};

async function look(browser, colorScheme, width) {
  const touch = width < 600 ? { hasTouch: true, isMobile: true } : {};
  const context = await browser.newContext({ viewport: { width, height: 900 }, colorScheme, ...touch });
  const page = await context.newPage();
  const seen = { colorScheme, width, errors: [], requests: [] };
  page.on("console", (message) => {
    // Chromium warns of the pixels that are read here.
    const { type, text } = { type: message.type(), text: message.text() };
    if (["error", "warning"].includes(type) && !text.includes("getImageData")) seen.errors.push(text);
  });
  page.on("pageerror", (error) => seen.errors.push(error.message));
  page.on("dialog", (dialog) => { seen.errors.push(dialog.message()); dialog.dismiss(); });
  page.on("request", (request) => seen.requests.push(request.url()));
  await page.goto(`file://${page_file}`);
  await page.waitForFunction(() => document.body.dataset.drawn === "yes");
  await page.waitForTimeout(300);
  seen.overflow = await page.evaluate(overflow);
  seen.plots = await page.evaluate(plots);
  seen.background = await page.evaluate(() => getComputedStyle(document.body).backgroundColor);
  await page.screenshot({ path: `${folder}/${colorScheme}_${width}.png`, fullPage: true });
  await page.evaluate(() => document.querySelectorAll("details").forEach((one) => { one.open = true; }));
  seen.overflow_when_open = await page.evaluate(overflow);
  return [page, seen];
}

// Where the measured points of the first plot are on the page.
const places = () => {
  const view = [...Bokeh.index.roots].find((one) => one.model.type === "Figure");
  const box = view.el.getBoundingClientRect();
  const glyphs = view.model.renderers.filter((one) => one.glyph.type === "Scatter" && one.name !== "reading");
  return glyphs.flatMap(({ data_source: { data } }) =>
    [...data.x].map((x, i) => [
      box.x + view.frame.x_scale.compute(x),
      box.y + scrollY + view.frame.y_scale.compute(data.y[i]),
    ]));
};

// Every point of the first plot is tapped once, then keys step through the losses; what is read
// below the plots is returned.
async function tap(page, seen, folder) {
  const said = (id) => page.textContent(`[data-reads="${id}"] output`);
  const ringed = () => page.evaluate(() => {
    const view = [...Bokeh.index.roots].find((one) => one.model.type === "Figure");
    return view.model.renderers.filter((one) => one.name === "reading" && one.data_source.data.x.length === 1).length;
  });
  seen.tapped = [await said("quality-1")];
  for (const [x, y] of await page.evaluate(places)) {
    await page.evaluate((top) => scrollTo(0, top - 450), y);
    await page.touchscreen.tap(x + 8, y - (await page.evaluate(() => scrollY)) - 8);
    await page.waitForTimeout(100);
    seen.tapped.push(await said("quality-1"));
  }
  seen.ringed = await ringed();
  await page.screenshot({ path: `${folder}/${seen.colorScheme}_tapped.png` });
  const before = await said("quality-1");
  const [left, top] = await page.evaluate(() => {
    const box = document.getElementById("quality-1").getBoundingClientRect();
    return [box.x + 3, box.y + box.height - 3];
  });
  await page.touchscreen.tap(left, top);
  seen.tapped_beside = [before, await said("quality-1")];
  seen.stepped = [];
  for (const by of ["next", "next", "previous", "previous"]) {
    await page.focus(`[data-reads="losses"] [aria-label="${by} point"]`);
    await page.keyboard.press("Enter");
    seen.stepped.push(await said("losses"));
  }
}

// Every point of the first plot is hovered once, and what the tips say is returned.
async function hover(page) {
  const points = await page.evaluate(places);
  const tips = [];
  for (const [x, y] of points) {
    await page.evaluate((top) => scrollTo(0, top - 450), y);
    const top = y - (await page.evaluate(() => scrollY));
    await page.mouse.move(x - 30, top + 30);
    await page.mouse.move(x, top, { steps: 3 });
    await page.waitForTimeout(150);
    tips.push(await page.evaluate(() => {
      const texts = [];
      const walk = (element) => {
        if (element.classList?.contains("bk-Tooltip")) {
          const inside = element.shadowRoot ?? element;
          texts.push([...inside.querySelectorAll(".bk-tooltip-row-value")].map((row) => row.textContent.trim()).join("; "));
        }
        for (const child of [...(element.shadowRoot?.children ?? []), ...element.children]) walk(child);
      };
      walk(document.body);
      return texts.join(" | ");
    }));
  }
  return tips;
}

async function use(page, seen) {
  seen.tips = await hover(page);
  await page.evaluate(() => scrollTo(0, 0));
  await page.mouse.click(1, 1);
  seen.tabbed = [];
  for (let i = 0; i < 60; i += 1) {
    await page.keyboard.press("Tab");
    seen.tabbed.push(await page.evaluate(focused));
  }
  const visible = () => page.evaluate(() => {
    const view = [...Bokeh.index.roots].find((one) => one.model.type === "Figure");
    return view.model.renderers.filter((one) => one.visible).length;
  });
  seen.visible = [await visible()];
  await page.focus("[data-shows]");
  await page.keyboard.press("Space");
  seen.visible.push(await visible());
  await page.keyboard.press("Space");
  seen.visible.push(await visible());
  const zoomed = () => page.evaluate(() => {
    const view = [...Bokeh.index.roots].find((one) => one.model.type === "Figure");
    const { start, end } = view.model.y_range;
    return end - start;
  });
  seen.zoomed = [await zoomed()];
  await page.evaluate(() => {
    const walk = (element) => {
      if (element.title === "Zoom In") return element;
      for (const child of [...(element.shadowRoot?.children ?? []), ...element.children]) {
        const found = walk(child);
        if (found) return found;
      }
    };
    walk(document.querySelector(".plot")).focus();
  });
  await page.keyboard.press("Enter");
  await page.waitForTimeout(200);
  seen.zoomed.push(await zoomed());
  await page.selectOption("#theme", "dark");
  seen.chosen = await page.evaluate(() => getComputedStyle(document.body).backgroundColor);
  seen.chosen_plots = await page.evaluate(plots);
}

(async () => {
  const { chromium: driver } = require(playwright);
  const browser = await driver.launch({ executablePath: chromium, headless: true, args: SWITCHES });
  const looks = [];
  for (const theme of ["light", "dark"]) {
    for (const width of [1280, 390]) {
      const [page, seen] = await look(browser, theme, width);
      if (theme === "light" && width === 1280) await use(page, seen);
      if (width === 390) await tap(page, seen, folder);
      if (theme === "dark" && width === 1280) {
        seen.pdf = (await page.pdf({ path: `${folder}/report.pdf`, format: "A4" })).length;
        await page.evaluate(() => dispatchEvent(new Event("beforeprint")));
        seen.printed_plots = await page.evaluate(plots);
      }
      looks.push(seen);
      await page.context().close();
    }
  }
  await browser.close();
  console.log(JSON.stringify(looks));
})();
