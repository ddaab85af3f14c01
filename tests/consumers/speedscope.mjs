// Opens files by speedscope's own importer, out of its web page's code, and prints what it understood: of each profile
// its name, its unit and, for each depth-0 call in order, name, start and end.
//
// usage: node speedscope.mjs DIRECTORY-OF-SPEEDSCOPE FILE
import fs from 'node:fs';
import path from 'node:path';
import vm from 'node:vm';

const [directory, file] = process.argv.slice(2);
const release = path.join(directory, 'dist/release');
const bundle = fs.readdirSync(release).find((name) => /^speedscope-.*\.js$/.test(name));
const code = fs.readFileSync(path.join(release, bundle), 'utf8');

// Stops where the page would be drawn, and hands the importer out.
const importer = code.match(/\(await (\w+)\)\.importProfileGroupFromText/)[1];
const start = 'console.log(`speedscope v';
if (!code.includes(start)) {
  throw new Error('speedscope starts in another way than it did');
}
const stopped = code.replace(start, () => `globalThis.importer=${importer};return;${start}`);

// There is no page: whatever is asked of it answers nothing.
const nothing = new Proxy(function () {}, {
  get: (_, key) => (key === Symbol.toPrimitive ? () => '' : nothing),
  apply: () => nothing,
  construct: () => nothing,
});
const silent = { log() {}, warn() {}, assert: console.assert, error: console.error };
const context = vm.createContext({
  window: nothing, document: nothing, self: nothing, location: nothing, navigator: nothing, localStorage: nothing,
  console: silent, TextDecoder, TextEncoder, URL, Blob, performance, setTimeout,
});
context.globalThis = context;
vm.runInContext(stopped, context);

const { importProfileGroupFromText } = await context.importer;
const group = await importProfileGroupFromText(path.basename(file), fs.readFileSync(file, 'utf8'));
if (!group) {
  throw new Error('speedscope does not know the format');
}
const profiles = group.profiles.map((profile) => {
  const calls = [];
  let depth = 0;
  profile.forEachCall(
    (node, at) => {
      if (depth === 0) {
        calls.push([node.frame.name, at, at]);
      }
      depth += 1;
    },
    (_, at) => {
      depth -= 1;
      if (depth === 0) {
        calls[calls.length - 1][2] = at;
      }
    },
  );
  return { name: profile.getName(), unit: profile.getWeightUnit(), calls };
});
console.log(JSON.stringify(profiles));
