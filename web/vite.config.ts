import { createHash } from "node:crypto";
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join, relative } from "node:path";
import { defineConfig, type Plugin } from "vite";

const root = import.meta.dirname;
const outDir = join(root, "../src/reverie/server/static");

/** Every file that the built page depends on; tests/server/test_static.py reads the same ones. */
function sources(): string[] {
  const under = (folder: string): string[] =>
    readdirSync(join(root, folder), { recursive: true, withFileTypes: true })
      .filter((entry) => entry.isFile() && !entry.name.endsWith(".test.ts"))
      .map((entry) => relative(root, join(entry.parentPath, entry.name)));
  const single = ["admin.html", "index.html", "package-lock.json", "package.json", "tsconfig.json", "vite.config.ts"];
  return [...single, ...under("public"), ...under("src")].map((name) => name.replaceAll("\\", "/")).sort();
}

/** Writes what the page was built from into it, so that a test can tell when a build was forgotten. */
function stamp(): Plugin {
  return {
    name: "stamp",
    apply: "build", // not when only tests run
    closeBundle() {
      const hash = createHash("sha256");
      for (const name of sources()) {
        const text = readFileSync(join(root, name), "utf8").replaceAll("\r\n", "\n");
        hash.update(`${name}\n${Buffer.byteLength(text)}\n${text}`);
      }
      writeFileSync(join(outDir, "stamp.txt"), `${hash.digest("hex")}\n`);
    },
  };
}

export default defineConfig({
  plugins: [stamp()],
  server: {
    proxy: { "/api": "http://127.0.0.1:8137", "/ws": { target: "ws://127.0.0.1:8137", ws: true } },
  },
  build: {
    outDir,
    emptyOutDir: true,
    target: "es2022",
    modulePreload: { polyfill: false },
    rolldownOptions: {
      input: { reverie: join(root, "index.html"), admin: join(root, "admin.html") },
      // Names without hashes: the files are committed, and the server has browsers ask whether they changed.
      output: { entryFileNames: "[name].js", chunkFileNames: "[name].js", assetFileNames: "[name][extname]" },
    },
  },
});
