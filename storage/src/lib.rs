//! vecino-storage
