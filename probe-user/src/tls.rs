//! Which implementation of TLS is used: one, by everything here that speaks it.

/// Makes *ring* the one that is used. More than once is as good as once.
pub fn use_ring() {
    // An error means that there is one already, and nothing here sets another.
    let _ = rustls::crypto::ring::default_provider().install_default();
}
