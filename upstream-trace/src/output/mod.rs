//! From a record to the bytes on standard output or in a file.
//!
//! [`select`] says whether a record is printed; [`json`] and [`text`] spell it into a [`batch`], and the [`writer`]'s thread, the only
//! place that writes, takes the batch over; `ahead` asks for the file's blocks. [`schema`] describes the JSON lines; what is no
//! record goes by the [`console`].
//! Must not know: how a record came about.

mod ahead;
pub mod batch;
pub mod console;
pub mod json;
#[cfg(test)]
pub(crate) mod samples;
pub mod schema;
pub mod select;
pub mod text;
pub mod writer;

use std::{
    env,
    io::{IsTerminal as _, stdout},
};

pub use self::{
    batch::{Batch, Weight},
    select::Selection,
    text::Style,
    writer::{Destination, Ended, Writer},
};
use crate::record::{Connection, Event, Stats, StrayReset};

/// Whether text on standard output is to have colour: on a terminal that can, unless <https://no-color.org> says no.
pub fn wants_colour() -> bool {
    let refused = env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let dumb = env::var_os("TERM").is_none_or(|term| term == "dumb");
    stdout().is_terminal() && !refused && !dumb
}

/// How a line is spelled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// One JSON object a line.
    Json,
    /// A small ladder for people.
    Text(Style),
}

macro_rules! spell {
    ($($(#[$doc:meta])* $line:ident($record:ty);)*) => {
        impl Format {
            $($(#[$doc])*
            /// `events`: the kernel events that it stands for, counted as lost where the line is dropped. Returns what is lost at
            /// once ([`Batch::line`]).
            pub fn $line(self, batch: &mut Batch, events: u64, record: &$record) -> Weight {
                batch.line(events, |room| match self {
                    Self::Json => json::$line(record, room),
                    Self::Text(style) => text::$line(record, style, room),
                })
            })*
        }
    };
}

spell! {
    /// Adds the line of a finished connection.
    connection(Connection<'_>);
    /// Adds the line of a reset without a socket.
    reset(StrayReset<'_>);
    /// Adds the line of a kernel event.
    event(Event<'_>);
    /// Adds the line of the tracer's own account.
    stats(Stats);
}

/// Whether a terminal or an editor would obey it instead of showing it: C0, DEL and C1, what turns the order of the text around it
/// (Unicode's bidirectional controls), and what breaks a line.
fn is_control(character: char) -> bool {
    let is_of_order = matches!(
        character,
        '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
    );
    character.is_control() || is_of_order || matches!(character, '\u{2028}' | '\u{2029}')
}

/// `\u009b` and the like: harmless in a terminal, and JSON.
const fn escape_control(character: char) -> [u8; 6] {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    // No control character has more than 16 bits.
    let code = character as usize;
    let [a, b, c, d] = [
        HEX[code >> 12 & 0xf],
        HEX[code >> 8 & 0xf],
        HEX[code >> 4 & 0xf],
        HEX[code & 0xf],
    ];
    [b'\\', b'u', a, b, c, d]
}
