//! Scenes: what a page cannot play, since it takes time, load or a caller that cheats. Each is set like a page, in a
//! namespace of its own, and more of it is real: the proxy under test has an agent that keeps its certificate at the
//! control plane's authority, over TLS, and the proxy's stream of configuration is mutual TLS, too. The proxy is both
//! sides of the mesh at once: its pod calls its own service.
//!
//! | scene | what is shown |
//! |---|---|
//! | `hostile` | callers with bad certificates, false names and plaintext are refused, and the reason is logged |
//! | `modes` | a namespace moves between PERMISSIVE, STRICT and DISABLE under load |
//! | `rotation` | certificates that live for seconds are renewed under load |
//! | `roots` | the mesh moves to another root under load |
//! | `away` | the authority is away for longer than certificates live |

mod agent;
mod away;
mod hostile;
mod impostor;
mod load;
mod mesh;
mod modes;
mod roots;
mod rotation;

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

use crate::DataPlane;
use crate::certificates::Files;
use crate::stage::{self, Stage};
use crate::world::World;

/// Every scene, in the order in which they play.
pub const SCENES: [&str; 5] = ["hostile", "modes", "rotation", "roots", "away"];

/// What came of a scene.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Report {
    /// What was seen, in words.
    pub seen: Vec<String>,
    /// What is not as it should be; none is a success.
    pub problems: Vec<String>,
}

impl Report {
    /// Notes something that holds, or does not.
    fn check(&mut self, holds: bool, what: impl Into<String>) {
        if holds {
            self.seen.push(what.into());
        } else {
            self.problems.push(format!("not so: {}", what.into()));
        }
    }
}

/// How a scene is played.
#[derive(Clone, Copy, Debug)]
pub struct Scene<'s> {
    /// The kind of the proxy.
    pub data_plane: DataPlane,
    /// Its program.
    pub program: &'s Path,
    /// For how long its load runs, where that can be chosen; a moment that suits a test when nothing is said.
    pub lasting: Option<Duration>,
}

/// Where every scene plays: two ports, so that connections between sidecars are made anew on one and kept on the other.
const WORLD: &str = "
identities: true
proxy: reviews-v1
services:
  reviews: {versions: [v1], ports: {http: 9080, http-kept: 9081}}
mesh:
  accessLogFormat: \"%REQ(X-CASEBOOK-EXCHANGE)% %RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS% \
     %UPSTREAM_TRANSPORT_FAILURE_REASON% %DOWNSTREAM_TRANSPORT_FAILURE_REASON%\\n\"
";

/// Plays a scene. This process must have one thread; it ends up inside a namespace of its own.
///
/// # Errors
/// There is no such scene, or it cannot be set.
pub fn play(name: &str, scene: &Scene<'_>) -> Result<Report> {
    let world = World::parse(WORLD).context("the world of the scenes")?;
    stage::on(&world, &Files::default(), async |stage: &Stage| {
        let mut report = Report::default();
        let outcome = match name {
            "hostile" => hostile::play(stage, &world, scene, &mut report).await,
            "modes" => modes::play(stage, &world, scene, &mut report).await,
            "rotation" => rotation::play(stage, &world, scene, &mut report).await,
            "roots" => roots::play(stage, &world, scene, &mut report).await,
            "away" => away::play(stage, &world, scene, &mut report).await,
            _ => anyhow::bail!("there is no scene {name}; there are {}", SCENES.join(", ")),
        };
        if let Err(error) = outcome {
            report.problems.push(format!("{error:#}"));
        }
        Ok(report)
    })
}
