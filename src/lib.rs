//! vecino
