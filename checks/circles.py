"""Fails when modules of one crate import each other in a circle.

    python3.11 checks/circles.py [--all] [CRATE_DIRECTORY ...]

Two modules beside each other form a circle when each reaches the other: directly, over other modules, or through any
module below them. `a/x.rs` -> `b.rs` -> `a/y.rs` is a circle of `a` and `b`. What a module and its own descendants
use of each other is not counted: a `mod.rs` may use its children, and a child its parent's items.

An arrow is a `use` or a path in code (`crate::a::B`, `super::a::B`, `a::B` after `use crate::a`). A name that a module
re-exports leads to the module that defines it, so that a path through the crate's root hides nothing.

Not read: modules and items under `#[cfg(test)]` (tests may use whatever they test), documentation, and methods: calling
a method of a value needs no path, so a type whose `impl` stands in another module's file ties nothing.

For each circle it prints the shortest way round: the files, and the names that tie them. `--all` prints every arrow
among the modules of that circle, for planning which to cut.
"""

import argparse
import re
import sys
from collections import defaultdict, deque
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TOKEN = re.compile(
    r"""
    (?P<skip>\s+|//[^\n]*)
    |(?P<comment>/\*)
    |(?P<raw>(?:b|c)?r(?P<hashes>\#*)")
    |(?P<text>(?:b|c)?"(?:[^"\\]|\\.)*")
    |(?P<char>b?'(?:[^'\\]|\\(?:x..|u\{[^}]*\}|.))')
    |(?P<lifetime>'\w+)
    |(?P<name>(?:r\#)?[A-Za-z_]\w*)
    |(?P<number>\d[\w.]*)
    |(?P<path>::)
    |(?P<other>.)
    """,
    re.VERBOSE | re.DOTALL,
)
NAME = re.compile(r"[A-Za-z_]\w*$")
CLOSES = {"(": ")", "[": "]", "{": "}"}
# What begins an item, and so says how far it goes.
ITEMS = {"fn", "struct", "enum", "union", "trait", "impl", "mod", "extern", "macro_rules"}
DEFINES = {"fn", "struct", "enum", "union", "trait", "type", "const", "static", "macro_rules"}


def tokens(text):
    """Names, `::` and signs of a Rust file, without comments, strings, characters, lifetimes and numbers."""
    found, at = [], 0
    while at < len(text):
        match = TOKEN.match(text, at)
        at = match.end()
        if match["comment"]:
            depth = 1
            while depth and (edge := re.compile(r"/\*|\*/").search(text, at)):
                depth += 1 if edge[0] == "/*" else -1
                at = edge.end()
        elif match["raw"]:
            at = text.index('"' + match["hashes"], at) + 1 + len(match["hashes"])
            found.append('""')
        elif match["text"]:
            found.append('""')
        elif match["name"]:
            found.append(match["name"].removeprefix("r#"))
        elif match["path"] or match["other"]:
            found.append(match[0])
    return found


def closing(code, at):
    """Where the bracket that opens at `at` is closed."""
    depth = 0
    for index in range(at, len(code)):
        depth += code[index] in CLOSES
        depth -= code[index] in CLOSES.values()
        if depth == 0:
            return index
    return len(code)


def end_of_item(code, at):
    """Where what begins at `at` ends: an item, or a field, arm or statement inside of one."""
    while at < len(code) and code[at] == "#":
        at = closing(code, at + 1) + 1
    if code[at : at + 1] == ["pub"]:
        at = closing(code, at + 1) + 1 if code[at + 1] == "(" else at + 1
    head = at
    while head < len(code) and code[head] in {"async", "unsafe", "default"} | ({"const"} if code[head + 1] == "fn" else set()):
        head += 1
    item, use = code[head] in ITEMS, code[head] == "use"
    while at < len(code):
        if code[at] == ";" or (code[at] == "," and not item and not use):
            return at + 1
        if code[at] in CLOSES.values():
            return at
        if code[at] in CLOSES:
            braces = code[at] == "{"
            at = closing(code, at) + 1
            if braces and not use:
                return at + (code[at : at + 1] == [","])
            continue
        at += 1
    return at


def is_test(attribute):
    """Whether an attribute's tokens keep an item out of the product: `cfg(test)` or `cfg(all(test, …))`."""
    return attribute[:3] == ["cfg", "(", "test"] or attribute[:5] == ["cfg", "(", "all", "(", "test"]


def use_tree(code, at, path=()):
    """The imports of a `use` tree: each path with the name it gets ("*" for a glob); and where the tree ends."""
    while True:
        token = code[at]
        if token == "*":
            return [(path, "*")], at + 1
        if token == "{":
            found, at = [], at + 1
            while code[at] != "}":
                more, at = use_tree(code, at, path) if code[at] != "," else ([], at + 1)
                found += more
            return found, at + 1
        if token == "as" or not (token == "::" or NAME.match(token)):
            plain = path[:-1] if len(path) > 1 and path[-1] == "self" else path
            if token == "as":
                return [(plain, code[at + 1])], at + 2
            return [(plain, plain[-1])] if plain else [], at
        if token != "::":
            path = (*path, token)
        at += 1


class Module:
    """One module: the names that it defines and imports, and the paths that its code mentions."""

    def __init__(self, path, file, directory, parent=None):
        self.path, self.file, self.directory, self.parent = path, file, directory, parent
        self.children, self.imports, self.globs = {}, defaultdict(list), []
        self.defined, self.imported, self.mentioned, self.words = set(), set(), set(), set()

    def read(self, code):
        """Reads the tokens of this module, and the modules declared in it."""
        at = depth = 0
        while at < len(code):
            token, following = code[at], code[at + 1 : at + 3]
            if token == "#" and following and following[0] in "[!":
                opens = at + 1 + (following[0] == "!")
                if code[opens] == "[" and is_test(code[opens + 1 : closing(code, opens)]):
                    if following[0] == "!":
                        return
                    at = end_of_item(code, closing(code, opens) + 1)
                    continue
            elif token == "use" and following[0] != "<":
                found, at = use_tree(code, at + 1)
                for path, name in found:
                    self.imported.add(path)
                    if name == "*":
                        self.globs.append(path)
                    else:
                        self.imports[name].append(path)
                continue
            elif token == "mod" and NAME.match(following[0]) and following[1] in ";{":
                at = self.declare(following[0], code, at + 2)
                continue
            elif NAME.match(token) and code[at - 1 : at] != ["::"]:
                if depth == 0 and token in DEFINES and following:
                    self.defined.add(code[at + 2] if token == "macro_rules" else following[0])
                path = [token]
                while code[at + 1 : at + 2] == ["::"] and NAME.match(code[at + 2]):
                    path.append(code[at + 2])
                    at += 2
                if len(path) > 1:
                    self.mentioned.add(tuple(path))
                self.words.add(token)
            depth += token == "{"
            depth -= token == "}"
            at += 1

    def declare(self, name, code, at):
        """Takes in a child module: `;` at `at` when it has a file of its own, else `{`. Returns where it ends."""
        below = self.directory / name
        if code[at] == "{":
            child = self.children[name] = Module((*self.path, name), self.file, below, self)
            end = closing(code, at)
            child.read(code[at + 1 : end])
            return end + 1
        file = next((file for file in (below.with_suffix(".rs"), below / "mod.rs") if file.exists()), None)
        if file is None:
            sys.exit(f"{self.file}: `mod {name};` has no file")
        child = self.children[name] = Module((*self.path, name), file, below, self)
        child.read(tokens(file.read_text()))
        return at + 1

    def all(self):
        yield self
        for child in self.children.values():
            yield from child.all()

    def knows(self, name):
        return name in self.children or name in self.defined or name in self.imports

    def start(self, path, depth=0):
        """Where a path of this module's code begins: a module, and the rest of the path in it. None: outside the crate."""
        module, rest = self, path
        if path[0] == "crate":
            while module.parent:
                module = module.parent
            rest = path[1:]
        elif path[0] in ("self", "super"):
            while rest and rest[0] in ("self", "super"):
                module, rest = (module.parent or module) if rest[0] == "super" else module, rest[1:]
        elif not self.knows(path[0]) and not any(there.knows(path[0]) for there in self.glob_modules(depth)):
            return None
        return module, rest

    def glob_modules(self, depth):
        """The modules of this crate whose names a glob import brings here."""
        if depth < DEEPEST:
            for path in self.globs:
                yield from self.named(path, depth + 1)

    def named(self, path, depth=0):
        """The modules that a path names; none when it names something else."""
        start = self.start(path, depth) if depth < DEEPEST else None
        if not start:
            return
        module, rest = start
        if not rest:
            yield module
        elif rest[0] in module.children:
            yield from module.children[rest[0]].named(("self", *rest[1:]), depth + 1)
        else:
            for further in module.imports.get(rest[0], ()):
                if further[0] != rest[0]:
                    yield from module.named(further + rest[1:], depth + 1)

    def reached(self, path, depth=0):
        """The modules that a path leads through, over re-exports, to the one that defines the name."""
        start = self.start(path, depth) if depth < DEEPEST else None
        if not start:
            return set()
        module, rest = start
        if not rest:
            return {module}
        name, found = rest[0], set()
        if name in module.children:
            found |= module.children[name].reached(("self", *rest[1:]), depth + 1)
        if name in module.defined:
            return found | {module}
        for further in module.imports.get(name, ()):
            # `use name::…` beside a child of that name speaks of the child; else of another crate.
            if further[0] != name:
                found |= {module} | module.reached(further + rest[1:], depth + 1)
        if not found and name not in module.imports:
            for there in module.glob_modules(depth):
                if there.knows(name):
                    found |= {module} | there.reached(("self", *rest), depth + 1)
        return found or {module}

    def arrows(self):
        """What this module's code uses: other modules, and the name as it is written."""
        # `Type::x` says no more than the import of `Type`; `module::x` does.
        paths = self.imported | {path for path in self.mentioned if any(self.named(path[:1]))}
        if self.globs:
            paths |= {(word,) for word in self.words if not self.knows(word)}
        for path in sorted(paths):
            for other in self.reached(path):
                yield other, "::".join(part for part in path if part not in ("crate", "self", "super")) or "*"


# How many re-exports one name may pass through.
DEEPEST = 20


def levels(root):
    """The arrows between modules beside each other: {parent: {(from, to): {(file, file): names}}}."""
    found = defaultdict(lambda: defaultdict(lambda: defaultdict(set)))
    for module in root.all():
        for other, name in module.arrows():
            here, there = module.path, other.path
            common = next((n for n, (a, b) in enumerate(zip(here, there)) if a != b), None)
            if common is not None:
                pair = here[: common + 1], there[: common + 1]
                found[here[:common]][pair][module.file, other.file].add(name)
    return found


def way(arrows, start, goal):
    """The shortest way along arrows from one module to another, of at least one arrow; None when there is none."""
    came, waiting = {}, deque([start])
    while waiting:
        here = waiting.popleft()
        for source, there in arrows:
            if source == here and there not in came:
                came[there] = here
                waiting.append(there)
    if goal not in came:
        return None
    path = [goal]
    while len(path) == 1 or path[-1] != start:
        path.append(came[path[-1]])
    return path[::-1]


def circles(arrows):
    """The sets of modules that all reach each other, each with its shortest circle."""
    left = {module for pair in arrows for module in pair}
    while left:
        first = min(left)
        together = {first} | {other for other in left if way(arrows, first, other) and way(arrows, other, first)}
        left -= together
        if len(together) > 1:
            among = {pair: ties for pair, ties in arrows.items() if together.issuperset(pair)}
            yield together, min((way(among, module, module) for module in sorted(together)), key=len), among


def shown(file):
    return file.relative_to(ROOT) if file.is_relative_to(ROOT) else file


def report(crate, parent, together, circle, among, everything):
    names = ", ".join(sorted("::".join(module[len(parent) :]) for module in together))
    below = f" in {'::'.join(parent)}" if parent else ""
    print(f"{shown(crate)}: circle of {len(together)} modules{below}: {names}")
    for pair in sorted(among) if everything else zip(circle, circle[1:]):
        for (file, other), ties in sorted(among[pair].items()):
            ties = sorted(ties)
            more = f" and {len(ties) - 6} more" if len(ties) > 6 and not everything else ""
            print(f"  {shown(file)} -> {shown(other)}: {', '.join(ties if everything else ties[:6])}{more}")


def check(crate, everything=False):
    """Prints the circles of one crate; returns how many modules it has, and how many circles."""
    modules = found = 0
    source = crate / "src"
    for file in (source / "lib.rs", source / "main.rs", *sorted(source.glob("bin/*.rs"))):
        if file.exists():
            root = Module((), file, file.parent)
            root.read(tokens(file.read_text()))
            modules += sum(1 for _ in root.all())
            for parent, arrows in sorted(levels(root).items()):
                for circle in circles(arrows):
                    report(crate, parent, *circle, everything)
                    found += 1
    return modules, found


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--all", action="store_true", help="print every arrow among the modules of a circle")
    parser.add_argument("crates", nargs="*", type=Path, help="directories of crates; without any: all")
    options = parser.parse_args()
    crates = [crate.resolve() for crate in options.crates] or sorted(path.parent for path in ROOT.glob("crates/*/Cargo.toml"))
    counts = [check(crate, options.all) for crate in crates]
    modules, found = map(sum, zip(*counts))
    print(f"{len(crates)} crates, {modules} modules, {found} circles")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
