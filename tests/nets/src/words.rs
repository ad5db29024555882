//! Values that are written as lines of words, and read back from them.

use std::fmt::Display;
use std::str::{FromStr, SplitWhitespace};

/// The next word of a line, as a value.
pub(crate) fn field<T: FromStr>(words: &mut SplitWhitespace<'_>, what: &str) -> Result<T, String>
where
    T::Err: Display,
{
    let word = words.next().ok_or_else(|| format!("{what} is missing"))?;
    word.parse().map_err(|e| format!("{what} can't be `{word}`: {e}"))
}

/// An enum whose variants are a word each.
macro_rules! words {
    ($(#[$meta:meta])* pub enum $name:ident { $($(#[$of:meta])* $variant:ident $word:literal),* $(,)? }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name { $($(#[$of])* $variant),* }

        impl $name {
            /// Every one.
            pub const ALL: &[$name] = &[$($name::$variant),*];
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(match self { $($name::$variant => $word),* })
            }
        }

        impl std::str::FromStr for $name {
            type Err = String;
            fn from_str(word: &str) -> Result<Self, String> {
                match word {
                    $($word => Ok($name::$variant),)*
                    _ => Err(format!("it is one of {:?}", [$($word),*])),
                }
            }
        }
    };
}

/// An enum whose variants are a line each: a word, and a word for each field.
macro_rules! lines {
    ($(#[$meta:meta])* pub enum $name:ident {
        $($(#[$of:meta])* $variant:ident $word:literal { $($field:ident: $type:ty),* }),* $(,)?
    }) => {
        $(#[$meta])*
        // The names of the fields say what they are.
        #[allow(missing_docs)]
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub enum $name { $($(#[$of])* $variant { $($field: $type),* }),* }

        impl $name {
            /// Its first word.
            pub fn word(&self) -> &'static str {
                match self { $($name::$variant { .. } => $word),* }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.word())?;
                match self { $($name::$variant { $($field),* } => { $(write!(f, " {}", $field)?;)* })* }
                Ok(())
            }
        }

        impl std::str::FromStr for $name {
            type Err = String;
            fn from_str(line: &str) -> Result<Self, String> {
                let mut words = line.split_whitespace();
                let read = match words.next() {
                    $(Some($word) => $name::$variant {
                        $($field: crate::words::field(&mut words, stringify!($field))?),*
                    },)*
                    _ => return Err(format!("`{line}` begins with none of {:?}", [$($word),*])),
                };
                match words.next() {
                    None => Ok(read),
                    Some(more) => Err(format!("`{more}` is too much in `{line}`")),
                }
            }
        }
    };
}

pub(crate) use {lines, words};
