// Opens a file in headless Chromium and notes everything that a harmless picture never does.
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

// Where tests/browser/fetch puts it.
const { chromium } = createRequire(new URL("../../target/browser/", import.meta.url))("playwright-core");

const QUIET = [
  "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
  "--disable-component-update", "--disable-sync",
];

export async function open(file, options = {}) {
  const browser = await chromium.launch({ executablePath: "/usr/bin/chromium", args: QUIET });
  const page = await browser.newPage({ viewport: { width: 1240, height: 900 }, ...options });
  const seen = { dialogs: [], errors: [], requests: [] };
  page.on("dialog", (dialog) => {
    seen.dialogs.push(dialog.message());
    dialog.dismiss();
  });
  page.on("pageerror", (error) => seen.errors.push(String(error)));
  page.on("console", (message) => {
    if (message.type() === "error") seen.errors.push(message.text());
  });
  const address = pathToFileURL(file).href;
  page.on("request", (request) => {
    if (!/^(data|blob|about):/.test(request.url()) && request.url().split("#")[0] !== address) seen.requests.push(request.url());
  });
  await page.goto(address);
  // Until what was asked for is on the screen.
  const settle = () =>
    page.evaluate(() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done))));
  return { page, seen, settle, close: () => browser.close() };
}
