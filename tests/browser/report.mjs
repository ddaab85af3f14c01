// Does with a report what a person would, by keyboard mostly, and prints what it saw as JSON: node report.mjs FILE.html
import { open } from "./page.mjs";

const file = process.argv[2];
const { page, seen, close } = await open(file);
const KINDS = ["hold", "wait", "blame", "cpu", "wall"];
const inside = (selector) => page.frameLocator(`${selector} iframe`);
const active = () =>
  page.evaluate(() => {
    const { tagName, id, textContent, title } = document.activeElement;
    return [tagName.toLowerCase(), id || title || textContent.trim().slice(0, 30)].join(" ");
  });
const shown = () =>
  page.locator(".flame").evaluateAll((all) =>
    all.filter((flame) => getComputedStyle(flame).visibility === "visible" && flame.offsetHeight > 100).map((flame) => flame.id));

// Where Tab leads, until it has left the flame graph: links, choice, search, then what the picture itself offers.
const tabs = [];
for (let count = 0; count < 40; count += 1) {
  await page.keyboard.press("Tab");
  tabs.push(await active());
  if (tabs.at(-1).startsWith("summary") || tabs.at(-1).startsWith("button")) break;
}

// The five flame graphs, from one to the next by arrow key.
await page.locator("#by-hold").focus();
const flames = [];
for (const kind of KINDS) {
  const picture = inside(`#flame-${kind}`);
  flames.push({
    shown: await shown(),
    title: await picture.locator(".head .title").textContent(),
    frames: await picture.locator("#frames > g").count(),
    labelled: await picture.locator("#frames text").evaluateAll((all) => all.filter((text) => text.textContent).length),
  });
  await page.keyboard.press("ArrowRight");
}
await page.locator("#by-hold").press("ArrowLeft");
await page.locator("#by-hold").check({ force: true });

// Search, by name, by something that is no regular expression, by something that is not there.
const hold = inside("#flame-hold");
const marked = () => hold.locator('#frames rect[fill="rgb(230,0,230)"]').count();
const names = await hold.locator("#frames title").allTextContents();
const searches = {};
for (const term of ["spin", "(", "no such name", ""]) {
  await page.locator("#term").fill(term);
  searches[term] = { answer: await page.locator("#search output").textContent(), marked: await marked() };
}

// In the picture: from the whole up to a thread, into it, and out again.
const hidden = () => hold.locator("#frames > g.hide").count();
await hold.locator('#frames > g[tabindex="0"]').focus();
const details = [await hold.locator("#details").textContent()];
await page.keyboard.press("ArrowUp");
details.push(await hold.locator("#details").textContent());
await page.keyboard.press("Enter");
const zoomed = await hidden();
await page.keyboard.press("Escape");
const unzoomed = await hidden();
await hold.locator("#frames > g rect").first().click({ force: true });
const clicked = await hidden();
await hold.locator("#unzoom").press("Enter");
const keys = { details, zoomed, unzoomed, clicked, back: await hidden() };

// Tables: sorted by a column, by keyboard; a stack unfolded.
const column = (number) => page.locator(`.threads tbody td:nth-child(${number})`).allTextContents();
const tid = page.locator(".threads thead button").nth(1);
await tid.press("Enter");
const descending = await column(2);
await tid.press(" ");
const sorted = { descending, ascending: await column(2), says: await page.locator(".threads thead th").nth(1).getAttribute("aria-sort") };
const stacks = page.locator("#holds details");
if (await stacks.count()) await stacks.first().locator("summary").press("Enter");
const unfolded = await page.locator("#holds details[open] li").count();

// The timeline is as on its own.
const timeline = inside("#timeline").locator("svg.gilspy");
const lanes = await timeline.locator("g.lane").count();
const before = (await page.locator("#timeline iframe").boundingBox()).height;
await timeline.locator("g.lane").first().click({ force: true });
const pinned = await timeline.locator(".pinned").innerText();
const after = (await page.locator("#timeline iframe").boundingBox()).height;
const cut = await timeline.evaluate((svg) => svg.getBoundingClientRect().height - innerHeight);

const text = await page.locator("body").innerText();
const heads = await page.locator("h1, h2, h3, h4").evaluateAll((all) => all.map((head) => Number(head.tagName[1])));
const unlabelled = await page.locator("table:not(:has(caption)), iframe:not([title]), input:not([aria-describedby]):not(#term)").count();
const foreign = await page.locator("body img, body b:empty, body object, body embed").count();

const ground = () => page.evaluate(() => getComputedStyle(document.body).backgroundColor);
const light = await ground();
await page.emulateMedia({ colorScheme: "dark" });
const dark = { page: await ground(), picture: await hold.locator("rect.page").evaluate((rect) => getComputedStyle(rect).fill) };
await page.emulateMedia({ colorScheme: "light", media: "print" });
const print = { flames: await shown(), nav: await page.locator("nav").isVisible(), search: await page.locator("#search").isVisible() };
await page.emulateMedia({ media: "screen" });
await page.setViewportSize({ width: 400, height: 800 });
const narrow = await page.evaluate(() => document.documentElement.scrollWidth <= innerWidth);

// Without scripts it is all there, and the switch still works.
const plain = await open(file, { javaScriptEnabled: false });
const still = {
  text: await plain.page.locator("#verdict").innerText(),
  search: await plain.page.locator("#search").isVisible(),
  frames: await plain.page.frameLocator("#flame-wait iframe").locator("#frames > g").count(),
};
await plain.page.locator("#by-hold").press("ArrowRight");
still.shown = await plain.page.locator(".flame:visible").getAttribute("id").catch(String);
for (const kind of Object.keys(seen)) seen[kind].push(...plain.seen[kind]);

console.log(JSON.stringify({
  tabs, flames, names, searches, keys, sorted, unfolded, timeline: { lanes, pinned, before, after, cut }, text, heads, unlabelled, foreign, light, dark, print, narrow, still, ...seen,
}));
await plain.close();
await close();
