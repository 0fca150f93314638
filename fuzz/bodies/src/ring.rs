//! The driver of the ring over a script that the input writes.

use crate::script::Bytes;
use crate::script::world::World;
use ringcall_uring::Features;

/// Lets connections send, receive, pause, land bodies and close, while their operations complete as the
/// input says: late, short, cancelled, without buffers.
///
/// # Panics
/// When bytes are lost or out of order, an end is told twice, a closed connection is not released, or
/// memory does not come back.
pub fn ring(data: &[u8]) {
    let Some((&mode, data)) = data.split_first() else { return };
    let features = match mode % 4 {
        0 => "multishot_receive",
        1 => "multishot_accept",
        _ => "",
    };
    let features = Features::without(features).unwrap_or_default();
    let (acts, script) = data.split_at(data.len() / 2);
    let mut world = World::new(Bytes(acts), Bytes(script), features);
    while !world.decide.0.is_empty() {
        world.act();
        if mode & 4 == 0 || world.decide.0.len() % 3 == 0 {
            world.reap();
        }
    }
    world.settle();
    let World { engine, memory, events, .. } = world;
    drop((engine, events));
    assert_eq!(memory.pool().stats().lent_bytes, 0, "memory does not come back");
}
