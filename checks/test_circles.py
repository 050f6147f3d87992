"""What `circles.py` finds and what it lets pass, on small crates made up for it."""

import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

PROGRAM = Path(__file__).resolve().parent / "circles.py"


def run(files, *options):
    """Runs the check on a crate of these files; returns its exit status and what it printed."""
    with tempfile.TemporaryDirectory() as directory:
        crate = Path(directory) / "small"
        for name, text in files.items():
            path = crate / "src" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        command = [sys.executable, PROGRAM, *options, crate]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        return done.returncode, done.stdout.replace(f"{crate}/", "") + done.stderr


class Circles(unittest.TestCase):
    def holds(self, files):
        status, output = run(files)
        self.assertEqual((status, output.splitlines()[-1][-9:]), (0, "0 circles"), output)

    def fails(self, files, *lines):
        status, output = run(files)
        self.assertEqual((status, output.splitlines()[-1][-9:]), (1, "1 circles"), output)
        for line in lines:
            self.assertIn(line, output.splitlines())

    def test_two_files(self):
        self.fails(
            {
                "lib.rs": "mod a;\npub mod b;\n",
                "a.rs": "use crate::b::{self, Other};\npub struct One(Other);\nfn f() { b::g(); }\n",
                "b.rs": "pub struct Other;\npub fn g() { let _: super::a::One; }\n",
            },
            "  src/a.rs -> src/b.rs: b, b::Other, b::g",
            "  src/b.rs -> src/a.rs: a::One",
        )

    def test_over_a_third(self):
        self.fails(
            {
                "main.rs": "mod a; mod b; mod c;",
                "a.rs": "use crate::b::B; pub struct A;",
                "b.rs": "use crate::c::C; pub struct B;",
                "c.rs": "use crate::a::A; pub struct C;",
            },
            "  src/a.rs -> src/b.rs: b::B",
            "  src/b.rs -> src/c.rs: c::C",
            "  src/c.rs -> src/a.rs: a::A",
        )

    def test_through_descendants(self):
        """No two files use each other here, the folders do."""
        self.fails(
            {
                "lib.rs": "mod a; mod b;",
                "a/mod.rs": "mod x; mod y;",
                "a/x.rs": "use crate::b::B;",
                "a/y.rs": "pub struct Y;",
                "b.rs": "pub struct B; fn f(_: crate::a::y::Y) {}",
            },
            "  src/a/x.rs -> src/b.rs: b::B",
            "  src/b.rs -> src/a/y.rs: a::y::Y",
        )

    def test_through_a_re_export_of_the_root(self):
        self.fails(
            {
                "lib.rs": "mod a; mod b; pub use a::{One, Two as Second}; pub use b::*;",
                "a.rs": "use crate::B; pub struct One; pub struct Two;",
                "b.rs": "use crate::Second; pub struct B;",
            },
            "  src/a.rs -> src/b.rs: B",
            "  src/b.rs -> src/a.rs: Second",
        )

    def test_through_a_glob_of_the_parent(self):
        self.fails(
            {
                "lib.rs": "mod a; mod b; use a::One; use b::B;",
                "a.rs": "use super::*; pub struct One(B);",
                "b.rs": "use super::*; pub struct B(Box<One>);",
            },
            "  src/a.rs -> src/b.rs: B",
            "  src/b.rs -> src/a.rs: One",
        )

    def test_below_another_module(self):
        self.fails(
            {
                "lib.rs": "mod top;",
                "top/mod.rs": "mod a; mod b;",
                "top/a.rs": "pub(super) fn f() { super::b::g() }",
                "top/b.rs": "pub(super) fn g() { crate::top::a::f() }",
            },
            "  src/top/a.rs -> src/top/b.rs: b::g",
            "  src/top/b.rs -> src/top/a.rs: top::a::f",
        )

    def test_modules_inside_of_a_file(self):
        self.fails({"lib.rs": "mod a { pub fn f() { super::b::g() } } mod b { use super::a::f; pub fn g() {} }"})

    def test_every_arrow(self):
        files = {
            "lib.rs": "mod a; mod b; mod c;",
            "a.rs": "use crate::b::B; pub struct A;",
            "b.rs": "use crate::a::A; use crate::c::C; pub struct B;",
            "c.rs": "use crate::a::A; pub struct C;",
        }
        arrow = "  src/b.rs -> src/c.rs: c::C\n"
        self.assertNotIn(arrow, run(files)[1])
        self.assertIn(arrow, run(files, "--all")[1])

    def test_a_module_and_its_children(self):
        self.holds(
            {
                "lib.rs": "mod a; pub use a::Inner; pub struct Top; fn f() { a::b::g() }",
                "a.rs": "pub mod b; use b::Inner as In; pub use b::Inner; pub struct Outer(In);",
                "a/b.rs": "use super::Outer; use crate::Top; pub struct Inner; pub fn g() {}",
            }
        )

    def test_one_direction(self):
        self.holds(
            {
                "lib.rs": "mod a; mod b; pub use a::A; pub use b::B;",
                "a.rs": "use crate::B; pub struct A(B);",
                "b.rs": "use std::fmt; pub struct B; impl fmt::Display for B {}",
            }
        )

    def test_what_is_not_read(self):
        self.holds(
            {
                "lib.rs": "mod a; mod b;",
                "a.rs": "use crate::b::B; pub struct A;",
                "b.rs": """
                    //! See [`crate::a::A`], /* and crate::a.
                    /* crate::a::A /* nested */ crate::a::A */
                    pub struct B { #[cfg(test)] a: crate::a::A, c: char }
                    const TEXT: &str = "crate::a::A \\" crate::a::A";
                    const RAW: &str = r#"crate::a::A " crate::a::A"#;
                    fn f<'a>(_: &'a str) -> char { '"' }
                    #[cfg(test)] use crate::a::{self, A};
                    #[cfg(test)] impl B { fn a(x: (A, A)) -> A { crate::a::A } }
                    #[cfg(all(test, unix))] #[rustfmt::skip] pub(crate) fn g<X, Y>() -> crate::a::A { crate::a::A }
                    #[cfg(test)] mod tests;
                """,
                "b/tests.rs": "use crate::a::A;",
            }
        )

    def test_what_follows_a_test_is_read(self):
        for test in (
            "#[cfg(test)] use crate::a::{self};",
            "#[cfg(test)] fn g<X, Y>() { { } }",
            "#[cfg(test)] mod tests { fn f() {} }",
            "#[cfg(test)] #[derive(Debug)] pub(crate) struct T;",
            "struct S { #[cfg(test)] a: Vec<u8>, b: crate::a::A }",
            "fn f() { match 1 { #[cfg(test)] 2 => { 3 } _ => crate::a::A } }",
        ):
            with self.subTest(test):
                self.fails(
                    {
                        "lib.rs": "mod a; mod b;",
                        "a.rs": "use crate::b::B; pub struct A;",
                        "b.rs": f"pub struct B; {test} fn h(_: crate::a::A) {{}}",
                    }
                )

    def test_names_of_other_crates(self):
        """`engine::run` is the crate's, not that of the module `engine` elsewhere."""
        self.holds(
            {
                "lib.rs": "mod engine; mod other;",
                "engine.rs": "use crate::other::Other;",
                "other.rs": "use engine::run; use std::engine; pub struct Other; fn f() { engine::run() }",
            }
        )


if __name__ == "__main__":
    unittest.main()
