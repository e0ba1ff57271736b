//! The client side (being written).
