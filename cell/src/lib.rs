//! Everything that touches the world: actor, bus, network, store, http, cli, config.
