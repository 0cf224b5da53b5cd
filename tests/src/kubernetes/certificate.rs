//! The certificates of an API server.

use std::{net::IpAddr, sync::Arc};

use anyhow::Context as _;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};
use rustls::{ClientConfig, RootCertStore, pki_types::CertificateDer};

/// A certificate that a server shows, and the authority that vouches for it.
#[derive(Debug)]
pub struct Certificates {
    authority: rcgen::Certificate,
    server: rcgen::Certificate,
    key: KeyPair,
}

impl Certificates {
    /// For a server at these addresses, by an authority of its own.
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

    /// The authority's certificate, as a file has it.
    pub fn authority(&self) -> String {
        self.authority.pem()
    }

    /// The server's, as a file has it.
    pub fn server(&self) -> String {
        self.server.pem()
    }

    /// The server's key, as a file has it.
    pub fn key(&self) -> String {
        self.key.serialize_pem()
    }

    /// What a client needs that trusts this authority only.
    pub fn client(&self) -> anyhow::Result<Arc<ClientConfig>> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from(self.authority.der().to_vec()))?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .context("no version of TLS")?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Arc::new(config))
    }
}

/// A key to sign tokens with, and the one to verify them with, as files have them.
pub fn signing_keys() -> anyhow::Result<[String; 2]> {
    let key = KeyPair::generate()?;
    Ok([key.serialize_pem(), key.public_key_pem()])
}
