//! Keys for `tcp:`: one file that both sides have. It holds a private key and its certificate; both sides show this
//! certificate in the TLS 1.3 handshake and accept no other, so whoever has the file is let in and nobody else.

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, Error, PeerIncompatible, ServerConfig,
    SignatureScheme,
};
use std::sync::Arc;

/// The name that certificates carry; nobody looks at it.
const NAME: &str = "mojavefs";

/// What a key file is not.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// No private key and certificate are in it.
    #[error("this is no key file of MojaveFS: {0}; make one with `mojavefs keygen`")]
    Unreadable(String),
    /// TLS does not take it.
    #[error("the key cannot be used: {0}")]
    Unusable(#[from] Error),
    /// No key could be made.
    #[error("cannot make a key: {0}")]
    Generate(#[from] rcgen::Error),
}

/// A key that both sides share.
pub struct Key {
    certificate: CertificateDer<'static>,
    private: PrivateKeyDer<'static>,
}

impl Key {
    /// The text of a new key file.
    pub fn generate() -> Result<String, KeyError> {
        let made = rcgen::generate_simple_self_signed(vec![NAME.to_owned()])?;
        Ok(made.signing_key.serialize_pem() + &made.cert.pem())
    }

    /// Reads the text of a key file.
    pub fn parse(text: &[u8]) -> Result<Self, KeyError> {
        let unreadable = |why: rustls::pki_types::pem::Error| KeyError::Unreadable(why.to_string());
        let certificate = CertificateDer::from_pem_slice(text).map_err(unreadable)?;
        let private = PrivateKeyDer::from_pem_slice(text).map_err(unreadable)?;
        Ok(Key { certificate, private })
    }

    fn pinned(&self) -> Arc<Pinned> {
        Arc::new(Pinned { certificate: self.certificate.clone(), provider: Arc::new(ring::default_provider()) })
    }

    /// TLS for a client.
    pub fn client(&self) -> Result<Arc<ClientConfig>, KeyError> {
        let pinned = self.pinned();
        let config = ClientConfig::builder_with_provider(pinned.provider.clone())
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(pinned)
            .with_client_auth_cert(vec![self.certificate.clone()], self.private.clone_key())?;
        Ok(Arc::new(config))
    }

    /// TLS for a server.
    pub fn server(&self) -> Result<Arc<ServerConfig>, KeyError> {
        let pinned = self.pinned();
        let config = ServerConfig::builder_with_provider(pinned.provider.clone())
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_client_cert_verifier(pinned)
            .with_single_cert(vec![self.certificate.clone()], self.private.clone_key())?;
        Ok(Arc::new(config))
    }

    /// What a client calls the server in the handshake.
    pub fn server_name() -> Result<ServerName<'static>, KeyError> {
        ServerName::try_from(NAME).map_err(|why| KeyError::Unreadable(why.to_string()))
    }
}

/// Accepts one certificate, and the proof that the peer has its private key.
#[derive(Debug)]
struct Pinned {
    certificate: CertificateDer<'static>,
    provider: Arc<CryptoProvider>,
}

impl Pinned {
    fn check(&self, shown: &CertificateDer<'_>) -> Result<(), Error> {
        match *shown == self.certificate {
            true => Ok(()),
            false => Err(CertificateError::UnknownIssuer.into()),
        }
    }

    fn check_proof(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        proof: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, proof, &self.provider.signature_verification_algorithms)
    }

    fn schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// TLS 1.2 is not spoken.
fn too_old() -> Error {
    PeerIncompatible::Tls12NotOffered.into()
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        shown: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.check(shown).map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(too_old())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        proof: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.check_proof(message, certificate, proof)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.schemes()
    }
}

impl ClientCertVerifier for Pinned {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        shown: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.check(shown).map(|()| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(too_old())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        proof: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.check_proof(message, certificate, proof)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.schemes()
    }
}
