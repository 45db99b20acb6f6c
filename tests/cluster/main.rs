//! Engines in clusters: of Pomelo, whose other servers the tests play, and of Pitaya, with a real
//! nats-server and etcd. Without these nothing of Pitaya's is tried, and says so.

#[cfg(all(feature = "pitaya", feature = "pomelo"))]
mod all_three;
#[cfg(all(feature = "cli", feature = "traces"))]
mod collector;
#[cfg(feature = "pitaya")]
#[path = "../../examples/pitaya_backend/backend.rs"]
mod backend;
#[cfg(feature = "pitaya")]
mod logins;
#[cfg(feature = "pitaya")]
mod nats_and_etcd;
#[cfg(feature = "pitaya")]
mod pitaya;
#[cfg(feature = "pitaya")]
mod pitaya_window;
#[cfg(feature = "pitaya")]
mod secured;
#[cfg(all(feature = "cli", feature = "traces"))]
mod traces;
mod traces_again;
mod traces_secured;
#[cfg(feature = "pitaya")]
mod users;
#[cfg(feature = "pomelo")]
mod pomelo;
#[cfg(feature = "pomelo")]
mod pomelo_master;
