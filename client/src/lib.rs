//! vecino-client
