//! The certificates of an API server.

use std::{net::IpAddr, sync::Arc};

use anyhow::Context as _;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};
use rustls::{ClientConfig, RootCertStore, pki_types::CertificateDer};

/// A server certificate and the authority that signed it.
#[derive(Debug)]
pub struct Certificates {
    authority: rcgen::Certificate,
    server: rcgen::Certificate,
    key: KeyPair,
}

impl Certificates {
    /// Creates a certificate for a server at these addresses, signed by a new authority.
    pub fn new(addresses: &[IpAddr]) -> anyhow::Result<Self> {
        let mut authority = CertificateParams::default();
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        authority.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let name = &mut authority.distinguished_name;
        name.push(DnType::CommonName, "the lab's authority");
        let authority_key = KeyPair::generate()?;
        let signed = authority.self_signed(&authority_key)?;
        let issuer = Issuer::new(authority, authority_key);

        let mut server = CertificateParams::default();
        let name = &mut server.distinguished_name;
        name.push(DnType::CommonName, "the lab's API server");
        server.subject_alt_names = addresses.iter().copied().map(SanType::IpAddress).collect();
        server.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        server.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate()?;
        Ok(Self {
            authority: signed,
            server: server.signed_by(&key, &issuer)?,
            key,
        })
    }

    /// The authority's certificate in PEM format.
    pub fn authority(&self) -> String {
        self.authority.pem()
    }

    /// The server's certificate in PEM format.
    pub fn server(&self) -> String {
        self.server.pem()
    }

    /// The server's private key in PEM format.
    pub fn key(&self) -> String {
        self.key.serialize_pem()
    }

    /// A TLS client configuration that trusts only this authority.
    pub fn client(&self) -> anyhow::Result<Arc<ClientConfig>> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from(self.authority.der().to_vec()))?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .context("no supported TLS version")?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Arc::new(config))
    }
}

/// A private key to sign tokens and the matching public key, in PEM format.
pub fn signing_keys() -> anyhow::Result<[String; 2]> {
    let key = KeyPair::generate()?;
    Ok([key.serialize_pem(), key.public_key_pem()])
}
