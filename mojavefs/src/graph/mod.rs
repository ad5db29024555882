//! The interval graph.
