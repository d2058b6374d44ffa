// Type-checks every `ts` and `tsx` block of the guides against the built client.
//
// A block that begins with `// clerk: path`, `// oidc: path` or `// path` is a file of that application, or of both; any other
// is a module of its own.

import { execFileSync } from "node:child_process";
import { mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const HERE = dirname(fileURLToPath(import.meta.url));
const OUT = join(HERE, "out");
const GUIDES = [
  "../README.md",
  ...["clerk", "migration", "nextjs", "typescript", "workflow-api"].map((name) => `../../../docs/${name}.md`),
];
const APPLICATIONS = ["clerk", "oidc"];

rmSync(OUT, { recursive: true, force: true });
let count = 0;
for (const guide of GUIDES) {
  const text = readFileSync(join(HERE, guide), "utf8");
  for (const [, extension, code] of text.matchAll(/^```(tsx?)\n(.*?)^```$/gms)) {
    count += 1;
    const [, application, path] = /^\/\/ (?:(\w+): )?(\S+\.tsx?)\n/.exec(code) ?? [];
    const line = text.slice(0, text.indexOf(code)).split("\n").length;
    if (path) {
      for (const name of application ? [application] : APPLICATIONS) {
        put(join(name, path), code);
      }
    } else {
      const name = guide.split("/").at(-1).replace(".md", "");
      put(`alone/${name}-line-${line}.${extension}`, `${code}\nexport {};\n`);
    }
  }
}
// What the blocks that stand alone take from the application around them.
put(
  "alone/around.d.ts",
  `import type { BpmgateClient, GetToken } from "@bpmgate/client";
declare global {
  const client: BpmgateClient;
  const id: string;
  const session: { getToken: GetToken };
  function show(text: string): void;
}`,
);
put("alone/open-tasks.tsx", "export declare function OpenTasks(): React.ReactNode;");

for (const name of ["alone", ...APPLICATIONS]) {
  put(
    `${name}/tsconfig.json`,
    JSON.stringify({
      compilerOptions: {
        target: "ES2022",
        module: "ESNext",
        moduleResolution: "Bundler",
        lib: ["ES2022", "DOM", "DOM.Iterable"],
        jsx: "preserve",
        types: ["node", "react"],
        strict: true,
        skipLibCheck: true,
        noEmit: true,
        paths: { "@/*": ["./*"], "@bpmgate/client": ["../../../dist"], "@bpmgate/client/*": ["../../../dist/*"] },
      },
    }),
  );
  try {
    execFileSync(join(HERE, "node_modules/.bin/tsc"), ["--project", join(OUT, name)], { cwd: OUT, stdio: "inherit" });
  } catch {
    process.exitCode = 1;
  }
}
console.log(process.exitCode ? "some code of the guides is wrong" : `${count} blocks of code are right`);

function put(path, text) {
  const file = join(OUT, path);
  mkdirSync(dirname(file), { recursive: true });
  writeFileSync(file, text);
}
