//! `admin` of the file: an address, or a table that also says who may ask.

use super::settings::Wrong;
use serde::de::value::{MapAccessDeserializer, StrDeserializer};
use serde::de::{Error, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

/// `admin = "ADDRESS"`, or `[admin]` with these keys.
#[derive(Clone, Default, PartialEq, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct AdminTable {
    /// Where the endpoint is.
    pub(super) listen: Option<SocketAddr>,
    /// The file with the token that every request but `/healthz` must carry; made at the first start if missing.
    pub(super) token_file: Option<PathBuf>,
    /// The endpoint's certificate chain, PEM.
    pub(super) tls_cert: Option<PathBuf>,
    /// Its private key, PEM.
    pub(super) tls_key: Option<PathBuf>,
}

/// Reads either form.
pub(super) fn read<'de, D: Deserializer<'de>>(from: D) -> Result<Option<AdminTable>, D::Error> {
    struct Either;
    impl<'de> Visitor<'de> for Either {
        type Value = AdminTable;

        fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
            out.write_str("an address, or a table with listen, token_file, tls_cert and tls_key")
        }

        fn visit_str<E: Error>(self, text: &str) -> Result<AdminTable, E> {
            let listen = SocketAddr::deserialize(StrDeserializer::new(text))?;
            Ok(AdminTable { listen: Some(listen), ..AdminTable::default() })
        }

        fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<AdminTable, A::Error> {
            AdminTable::deserialize(MapAccessDeserializer::new(map))
        }
    }
    from.deserialize_any(Either).map(Some)
}

/// Who may ask the admin endpoint, and how they are sure whom they ask.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub(crate) struct AdminAccess {
    /// The token's file.
    pub(crate) token_file: Option<PathBuf>,
    /// Certificate chain and private key.
    pub(crate) tls: Option<TlsFiles>,
}

/// PEM files of the endpoint's identity.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct TlsFiles {
    /// The certificate chain, the endpoint's own first.
    pub(crate) cert: PathBuf,
    /// The private key.
    pub(crate) key: PathBuf,
}

impl AdminAccess {
    /// Checks that what belongs together is there together, for an endpoint at `listen`.
    pub(super) fn of(table: &AdminTable, listen: SocketAddr) -> Result<Self, Wrong> {
        let tls = match (&table.tls_cert, &table.tls_key) {
            (Some(cert), Some(key)) => Some(TlsFiles { cert: cert.clone(), key: key.clone() }),
            (None, None) => None,
            (Some(cert), None) => {
                return Err(Wrong::new("admin.tls_cert", cert.display(), "together with admin.tls_key"));
            }
            (None, Some(key)) => {
                return Err(Wrong::new("admin.tls_key", key.display(), "together with admin.tls_cert"));
            }
        };
        let access = Self { token_file: table.token_file.clone(), tls };
        if !listen.ip().is_loopback() && (access.token_file.is_none() || access.tls.is_none()) {
            let allowed =
                "a loopback address; any other needs admin.token_file, admin.tls_cert and admin.tls_key";
            return Err(Wrong::new("admin.listen", listen, allowed));
        }
        Ok(access)
    }

    /// The table that says it.
    pub(super) fn to_table(&self, listen: SocketAddr) -> AdminTable {
        AdminTable {
            listen: Some(listen),
            token_file: self.token_file.clone(),
            tls_cert: self.tls.as_ref().map(|tls| tls.cert.clone()),
            tls_key: self.tls.as_ref().map(|tls| tls.key.clone()),
        }
    }
}
