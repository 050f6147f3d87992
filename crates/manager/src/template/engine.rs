//! The template engine, set up to behave as upstream's: Jinja2, sandboxed, strict about undefined variables.
//!
//! A template can reach the variables it is given and files in its directory; nothing else of the process.

use minijinja::{AutoEscape, Environment, UndefinedBehavior};

use super::files::Directory;
use super::limits::{CALLS, STEPS};
use super::{filters, print};

pub(super) fn engine<'a>(directory: Directory) -> Environment<'a> {
    let mut engine = Environment::new();
    engine.set_undefined_behavior(UndefinedBehavior::Strict);
    // The names end in .yaml, for which the engine would quote every value by itself.
    engine.set_auto_escape_callback(|_| AutoEscape::None);
    engine.set_debug(true);
    engine.set_fuel(Some(STEPS));
    engine.set_recursion_limit(CALLS);
    engine.set_auto_reload(false);
    engine.set_formatter(print::formatter);
    engine.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
    engine.set_loader(move |name: &str| directory.load(name));
    filters::add(&mut engine);
    // Prints all variables, the environment among them; Jinja2 has it as an extension only.
    engine.remove_global("debug");
    engine
}
