//! Members of a group in virtual time, joined by links that lose, delay and cut.

mod admission;
mod attacks;
mod broken;
mod chaos;
mod checkpoints;
mod fencing;
mod foreign;
mod health;
mod keys;
mod lagging;
mod maintenance;
mod operator;
mod overlaps;
mod pair;
mod partial;
mod services;
mod sessions;
mod stale;
mod stragglers;
mod table;
mod unable;
mod witnessed;
mod world;
