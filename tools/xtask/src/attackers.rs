//! Hostile clients: the program `hostile` of `bench/`.

use crate::affinity::spawn_on;
use crate::node::Node;
use crate::tree::binary;
use anyhow::{Context, Result};
use serde_json::Value;
use std::io::Read;
use std::process::{Child, Command, Stdio};

/// A crowd of them; killed when dropped. It runs at a lower priority than those whom it disturbs.
pub(crate) struct Attackers(Child);

impl Attackers {
    /// Begins one kind of attack, for so many seconds.
    pub(crate) fn start(node: &Node, attack: &str, seconds: u32, cpu: Option<usize>) -> Result<Self> {
        let mut command = Command::new("nice");
        command.args(["-n", "10"]).arg(binary("hostile")).args(["--phone", node.phone(), "--attack", attack]);
        command.args(["--duration", &seconds.to_string()]).stdout(Stdio::piped());
        // A screen may be there, which no child may write to.
        command.stderr(Stdio::piped());
        Ok(Self(spawn_on(cpu, &mut command)?))
    }

    /// Waits for its end: what became of it.
    pub(crate) fn finish(mut self) -> Result<Value> {
        let (mut text, mut error) = (String::new(), String::new());
        self.0.stdout.take().context("the attackers' standard output")?.read_to_string(&mut text)?;
        self.0.stderr.take().context("the attackers' standard error")?.read_to_string(&mut error)?;
        let status = self.0.wait()?;
        serde_json::from_str(&text).with_context(|| format!("hostile ({status}) said {text:?}, {error}"))
    }
}

impl Drop for Attackers {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
