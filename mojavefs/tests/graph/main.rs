//! The interval graph: its promises one by one, random histories and every small case against a naive model.

mod checker;
mod explore;
mod promises;
mod purity;
mod random;
mod referee;
