//! One account at a time, and the list of all.

use crate::keys;
use crate::print::print;
use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};
use tern_admin::{Admin, Made, NewAccount};
use tern_protocol::hex::{from_hex, to_hex};
use tern_protocol::phone::valid_name;

/// Makes an account with one device.
pub(crate) fn add(admin: &Admin, name: &str, key: Option<&str>, key_file: Option<PathBuf>) -> Result<()> {
    check_name(name)?;
    let Some(hex) = key else { return add_with_key_file(admin, name, key_file) };
    let public: [u8; 32] =
        from_hex(hex).with_context(|| format!("--key {hex}: allowed are 64 hex digits"))?;
    let made = create(admin, name, public)?;
    print(&format!("{name} {}\n", id_of(&made)?)).map(drop)
}

/// The key is on disk before the account exists: an account whose key was lost could never be used. A key that is there
/// already, perhaps from a try that had no answer, is the account's.
fn add_with_key_file(admin: &Admin, name: &str, key_file: Option<PathBuf>) -> Result<()> {
    let file = key_file.unwrap_or_else(|| PathBuf::from(format!("{name}.key")));
    let shown = file.display();
    let is_new = !file.exists();
    let keys = if is_new { keys::make(&file)? } else { keys::load(&file)? };
    match create(admin, name, keys.public) {
        Ok(made) => match id_of(&made) {
            Ok(id) => print(&format!("{name} {id} private key in {shown}\n")).map(drop),
            Err(refused) => Err(without_use(is_new, &file, refused)),
        },
        Err(error) if tern_admin::did_nothing(&error) => Err(without_use(is_new, &file, error)),
        // The account may exist: then the key stays.
        Err(error) => Err(error.context(format!(
            "whether {name} was made is unknown; its private key stays in {shown}, and the same command uses it again"
        ))),
    }
}

/// There is no account with this key: if the key was made for it, its file goes.
fn without_use(is_new: bool, file: &Path, why: anyhow::Error) -> anyhow::Error {
    if !is_new {
        return why.context(format!("with the key that is in {}", file.display()));
    }
    match std::fs::remove_file(file) {
        Ok(()) => why,
        Err(error) => why.context(format!("key file {} is of no use and stays: {error}", file.display())),
    }
}

fn create(admin: &Admin, name: &str, public: [u8; 32]) -> Result<Made> {
    let made = admin.create(&[NewAccount { name: name.into(), device_keys: [to_hex(&public)] }])?;
    made.into_iter().next().context("no result for the account")
}

fn id_of(made: &Made) -> Result<&str> {
    match (made.result.as_str(), &made.id) {
        ("created" | "existing", Some(id)) => Ok(id),
        (refused, _) => bail!("{}: {}", made.name, explain(refused)),
    }
}

/// The endpoint's word in a sentence.
pub(crate) fn explain(result: &str) -> &str {
    match result {
        "taken" => "the name is taken by an account with other keys",
        "bad_name" => "not a name",
        "bad_keys" => "not keys that an account can have",
        "full" => "the shard has as many accounts as limits.account_count allows",
        "log_full" => {
            "the shard's drive is full, or its log has as many segments as limits.segment_count allows"
        }
        other => other,
    }
}

/// Refuses early what the node would refuse.
pub(crate) fn check_name(name: &str) -> Result<()> {
    if !valid_name(name) {
        bail!("{name:?} is not a name: 1 to 64 of a-z, 0-9, '.', '-', '_', the first one a letter or digit");
    }
    Ok(())
}

/// Prints every account, in the order of ids.
pub(crate) fn list(admin: &Admin) -> Result<()> {
    let mut after = "0".to_string();
    loop {
        let page = admin.get(&format!("/v1/accounts?after={after}&limit=1000"))?;
        let mut lines = String::new();
        for account in page["accounts"].as_array().context("accounts")? {
            let devices = account["devices"].as_array().map_or(0, Vec::len);
            lines += &format!(
                "{} {} devices={devices} online={} waiting={}\n",
                account["id"].as_str().context("id")?,
                account["name"].as_str().context("name")?,
                account["online"],
                account["waiting"],
            );
        }
        if !print(&lines)? {
            return Ok(());
        }
        match page["next"].as_str() {
            Some(next) => after = next.into(),
            None => return Ok(()),
        }
    }
}

/// Removes an account.
pub(crate) fn remove(admin: &Admin, name: &str) -> Result<()> {
    check_name(name)?;
    admin.delete(&format!("/v1/accounts/{name}"))?;
    print(&format!("removed {name}\n")).map(drop)
}
