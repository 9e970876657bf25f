//! vecino-index
