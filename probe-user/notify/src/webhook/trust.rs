//! The certificate authorities that a webhook trusts.

use std::{path::Path, sync::Arc};

use rustls::{
    ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, pem::PemObject as _},
};

use super::{error::WebhookError, files};

/// The content of a file of certificates.
pub fn read(path: &Path) -> Result<Vec<u8>, WebhookError> {
    files::read(path, "certificates")
}

/// A TLS configuration that trusts the certificate authorities of this file; without a file those of the system; and
/// without those, as in an image, Mozilla's as of the build.
pub fn config(authorities: Option<(&Path, &[u8])>) -> Result<ClientConfig, WebhookError> {
    let mut roots = RootCertStore::empty();
    if let Some((path, bytes)) = authorities {
        for certificate in CertificateDer::pem_slice_iter(bytes) {
            let certificate =
                certificate.map_err(|_| WebhookError::NoCertificate(path.to_owned()))?;
            roots.add(certificate).map_err(WebhookError::Tls)?;
        }
        if roots.is_empty() {
            return Err(WebhookError::NoCertificate(path.to_owned()));
        }
    } else {
        // Certificates that cannot be parsed are skipped.
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        if roots.is_empty() {
            let mozilla = webpki_root_certs::TLS_SERVER_ROOT_CERTS.iter().cloned();
            roots.add_parsable_certificates(mozilla);
        }
    }
    // The provider is passed explicitly, independent of a process-wide one.
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
    Ok(builder
        .with_safe_default_protocol_versions()
        .map_err(WebhookError::Tls)?
        .with_root_certificates(roots)
        .with_no_client_auth())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trust_store_always_contains_roots() {
        assert!(config(None).is_ok());
        assert!(webpki_root_certs::TLS_SERVER_ROOT_CERTS.len() > 50);
    }

    #[test]
    fn a_file_without_certificates_is_an_error_that_names_it() {
        let path = Path::new("/etc/ca.pem");
        for bad in [
            &b""[..],
            b"hello",
            b"-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n",
            b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
            &[0xff; 9],
        ] {
            let error = config(Some((path, bad))).unwrap_err();
            assert!(!error.to_string().is_empty(), "{error:?}");
        }
        let error = config(Some((path, b""))).unwrap_err();
        assert!(error.to_string().starts_with("/etc/ca.pem"), "{error}");
    }
}
