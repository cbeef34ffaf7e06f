//! Bearer tokens: JWTs signed with a secret that lies in the data directory.

use std::fs::{self, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation, decode, encode};

use crate::entropy;

/// Every scope that a token can be limited to.
pub const SCOPES: [&str; 8] = [
    "*",
    "instance:read",
    "instance:write",
    "instance:delete",
    "image:read",
    "image:write",
    "image:delete",
    "resource:read",
];

/// What a token says.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Claims {
    /// Who it was made for.
    pub sub: String,
    /// When, in seconds since 1970.
    pub iat: u64,
    /// Until when, in seconds since 1970.
    pub exp: u64,
    /// What it may do; absent = everything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub permissions: Option<Vec<String>>,
    /// Marks of tokens for image registries, which are no API tokens.
    #[serde(default, skip_serializing)]
    repos: Option<serde_json::Value>,
    #[serde(default, skip_serializing)]
    scope: Option<serde_json::Value>,
    #[serde(default, skip_serializing)]
    build_id: Option<serde_json::Value>,
}

/// Why a token is refused.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// Not signed with this server's secret, expired, or not a token at all.
    #[error("the token is not valid: {0}")]
    Invalid(String),
    /// A registry token.
    #[error("the token is for an image registry, not for this API")]
    Registry,
    /// A scope that does not exist.
    #[error("unknown scope {0:?}; scopes are: {known}", known = SCOPES.join(" "))]
    UnknownScope(String),
}

/// Makes and checks tokens.
pub struct Tokens {
    encoding: EncodingKey,
    decoding: DecodingKey,
}

impl Tokens {
    /// Reads the secret at `path`; makes one, readable by its owner alone, if there is none.
    pub fn open(path: &Path) -> io::Result<Self> {
        let secret = match fs::read(path) {
            Ok(secret) if secret.len() >= 32 => secret,
            Ok(_) => {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    format!(
                        "{} is shorter than 32 bytes; remove it to get a new secret",
                        path.display()
                    ),
                ));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => create_secret(path)?,
            Err(error) => return Err(error),
        };
        Ok(Self {
            encoding: EncodingKey::from_secret(&secret),
            decoding: DecodingKey::from_secret(&secret),
        })
    }

    /// Makes a token for `subject` that holds for `lifetime`.
    pub fn issue(
        &self,
        subject: &str,
        lifetime: Duration,
        permissions: Option<Vec<String>>,
    ) -> Result<String, TokenError> {
        if let Some(unknown) = permissions
            .iter()
            .flatten()
            .find(|scope| !SCOPES.contains(&scope.as_str()))
        {
            return Err(TokenError::UnknownScope(unknown.clone()));
        }
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_secs());
        let claims = Claims {
            sub: subject.to_owned(),
            iat: now,
            exp: now.saturating_add(lifetime.as_secs()),
            permissions,
            repos: None,
            scope: None,
            build_id: None,
        };
        encode(&Header::new(Algorithm::HS256), &claims, &self.encoding)
            .map_err(|error| TokenError::Invalid(error.to_string()))
    }

    /// Checks signature, algorithm, expiry and kind.
    pub fn check(&self, token: &str) -> Result<Claims, TokenError> {
        let validation = Validation::new(Algorithm::HS256);
        let claims = decode::<Claims>(token, &self.decoding, &validation)
            .map_err(|error| TokenError::Invalid(error.to_string()))?
            .claims;
        let registry = claims.repos.is_some()
            || claims.scope.is_some()
            || claims.build_id.is_some()
            || claims.sub.starts_with("builder-");
        if registry {
            return Err(TokenError::Registry);
        }
        Ok(claims)
    }
}

/// Two daemons or commands may come here at once: whoever creates the file decides.
fn create_secret(path: &Path) -> io::Result<Vec<u8>> {
    let secret = entropy::secret();
    let created = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path);
    match created {
        Ok(mut file) => {
            file.write_all(&secret)?;
            file.sync_all()?;
            Ok(secret.to_vec())
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            let mut secret = Vec::new();
            OpenOptions::new()
                .read(true)
                .open(path)?
                .read_to_end(&mut secret)?;
            Ok(secret)
        }
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens() -> (tempfile::TempDir, Tokens) {
        let dir = tempfile::tempdir().unwrap();
        let tokens = Tokens::open(&dir.path().join("secret")).unwrap();
        (dir, tokens)
    }

    #[test]
    fn a_token_says_what_it_was_issued_with() {
        let (dir, tokens) = tokens();
        let scopes = vec!["instance:read".to_owned()];
        let token = tokens
            .issue("ann", Duration::from_secs(60), Some(scopes.clone()))
            .unwrap();
        let again = Tokens::open(&dir.path().join("secret")).unwrap();
        let claims = again.check(&token).unwrap();
        assert_eq!(
            (claims.sub.as_str(), claims.permissions),
            ("ann", Some(scopes))
        );
    }

    /// A token as another program that has the secret would make it.
    fn made(tokens: &Tokens, algorithm: Algorithm, claims: &serde_json::Value) -> String {
        encode(&Header::new(algorithm), claims, &tokens.encoding).unwrap()
    }

    #[test]
    fn a_token_holds_until_it_expires() {
        let (_dir, tokens) = tokens();
        // Clocks may differ by a minute.
        for (age, holds) in [(-60, true), (600, false)] {
            let exp = jsonwebtoken::get_current_timestamp().saturating_add_signed(-age);
            let claims = serde_json::json!({ "sub": "ann", "iat": 1, "exp": exp });
            let token = made(&tokens, Algorithm::HS256, &claims);
            assert_eq!(tokens.check(&token).is_ok(), holds, "{age}");
        }
        let endless = serde_json::json!({ "sub": "ann", "iat": 1 });
        let token = made(&tokens, Algorithm::HS256, &endless);
        assert!(tokens.check(&token).is_err(), "a token must expire");
    }

    #[test]
    fn tokens_of_registries_and_other_algorithms_are_refused() {
        let (_dir, tokens) = tokens();
        let exp = jsonwebtoken::get_current_timestamp() + 60;
        let claims = |extra: &str| {
            let mut claims = serde_json::json!({ "sub": "ann", "iat": 1, "exp": exp });
            claims[extra] = serde_json::json!([]);
            claims
        };
        for extra in ["repos", "scope", "build_id"] {
            let token = made(&tokens, Algorithm::HS256, &claims(extra));
            let refused = tokens.check(&token);
            assert!(matches!(refused, Err(TokenError::Registry)), "{extra}");
        }
        let token = made(&tokens, Algorithm::HS384, &claims("other"));
        assert!(tokens.check(&token).is_err());
        let token = made(&tokens, Algorithm::HS256, &claims("other"));
        assert!(tokens.check(&token).is_ok());
    }

    #[test]
    fn foreign_tampered_and_registry_tokens_are_refused() {
        let (_dir, tokens) = tokens();
        let (_other_dir, other) = self::tokens();
        let token = tokens.issue("ann", Duration::from_secs(60), None).unwrap();
        assert!(other.check(&token).is_err());
        assert!(tokens.check(&format!("{token}x")).is_err());
        assert!(tokens.check("").is_err());
        // The header of an unsigned token.
        let unsigned = format!("eyJhbGciOiJub25lIn0.{}.", token.split('.').nth(1).unwrap());
        assert!(tokens.check(&unsigned).is_err());
        let builder = tokens
            .issue("builder-1", Duration::from_secs(60), None)
            .unwrap();
        assert!(matches!(tokens.check(&builder), Err(TokenError::Registry)));
        let scope = Some(vec!["instance:*".to_owned()]);
        assert!(matches!(
            tokens.issue("ann", Duration::from_secs(60), scope),
            Err(TokenError::UnknownScope(_))
        ));
    }
}
