//! Actions: what a service can be asked, declared once.
//!
//! [`actions!`](crate::actions!) turns one declaration into a marker type that implements [`Action`],
//! a variant of the service's request and answer enums, a typed client method, and an
//! [`ActionInfo`] from which HTTP, OpenAPI, the command line and the docs are made.
//!
//! Three handlers exist. A **machine** action is decided by the service's pure machine. A **front**
//! action needs the world first (the clock, a key, a peer); it runs in `cell::fronts` and ends in
//! machine actions. A **stream** is answered by many items, one after the other, for as long as
//! somebody takes them: what grows, and what is too large for one answer.

use minicbor::{Decode, Encode};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::id::CellId;
use crate::problem::Problem;
use crate::service::Service;

/// Whether an action may change anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Changes nothing; may be repeated freely.
    Query,
    /// May append to a journal.
    Command,
}

/// Who may call an action. Each level includes those above it in this list.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema, Encode, Decode,
)]
#[cbor(index_only)]
#[serde(rename_all = "lowercase")]
pub enum Access {
    /// A token with the role `read` and up.
    #[n(0)]
    Read,
    /// A token with the role `write` and up.
    #[n(1)]
    Write,
    /// A token with the role `admin`.
    #[n(2)]
    Admin,
    /// Only the cell's own services: never reachable from outside.
    #[n(3)]
    Internal,
}

/// Which room answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Handler {
    /// The service's pure machine.
    Machine,
    /// A front in `cell`, which ends in machine actions.
    Front,
    /// A front in `cell` that gives item after item ([`StreamAction`]).
    Stream(Content),
}

/// What the items of a stream are when they are put one behind the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Content {
    /// Lines of JSON, each item one, with its line feed.
    Lines,
    /// Bytes, cut anywhere.
    Bytes,
}

/// Who is asking.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Caller {
    /// One of the cell's own services, or the cell's start and stop sequence.
    Internal,
    /// A bearer of a token of this cell, with that token's role and name.
    Token {
        /// What the token may do.
        role: Access,
        /// The token's name, for the audit.
        name: String,
    },
    /// Another cell, by an EXEC message; its access list was checked.
    Cell(CellId),
}

impl Caller {
    /// Whether this caller may call actions of the given level. For a cell, the access list has
    /// named the action already; internal actions stay closed.
    pub fn may(&self, access: Access) -> bool {
        match self {
            Self::Internal => true,
            Self::Token { role, .. } => access <= *role && access != Access::Internal,
            Self::Cell(_) => access != Access::Internal,
        }
    }
}

impl std::fmt::Display for Caller {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Internal => f.write_str("internal"),
            Self::Token { name, .. } => write!(f, "token:{name}"),
            Self::Cell(cell) => write!(f, "{cell}"),
        }
    }
}

/// An action's description: everything a reader, a router or a schema needs to know.
#[derive(Debug)]
pub struct ActionInfo {
    /// `service.verb`.
    pub name: &'static str,
    /// The service it belongs to.
    pub service: Service,
    /// The verb alone.
    pub verb: &'static str,
    /// What it does, one paragraph.
    pub doc: &'static str,
    /// Query or command.
    pub kind: Kind,
    /// Who may call it.
    pub access: Access,
    /// Which room answers.
    pub handler: Handler,
    /// Adds the request's JSON schema to a generator.
    pub request_schema: fn(&mut SchemaGenerator) -> Schema,
    /// Adds the answer's JSON schema to a generator; a stream of lines has that of one line.
    pub answer_schema: fn(&mut SchemaGenerator) -> Schema,
}

/// One action, as a type.
pub trait Action: 'static {
    /// What is asked.
    type Request: Serialize + DeserializeOwned + JsonSchema + Clone + Send + Sync + 'static;
    /// What is answered.
    type Answer: Serialize + DeserializeOwned + JsonSchema + Clone + Send + Sync + 'static;
    /// The words of its service.
    type Words: ServiceWords;
    /// Its description.
    const INFO: ActionInfo;
}

/// An action that is answered by many items, as a type. It changes nothing.
pub trait StreamAction: 'static {
    /// What is asked.
    type Request: Serialize + DeserializeOwned + JsonSchema + Clone + Send + Sync + 'static;
    /// What one item says.
    type Item: Serialize + DeserializeOwned + JsonSchema + Send + 'static;
    /// Its description.
    const INFO: ActionInfo;
}

/// A service's words: the closed enums that its machine takes and gives.
pub trait ServiceWords: 'static {
    /// Which service.
    const SERVICE: Service;
    /// One variant a machine action.
    type Request: Clone + Send + 'static;
    /// One variant a machine action.
    type Answer: Clone + Send + 'static;
    /// The name of the action a request belongs to, without the service.
    fn verb(request: &Self::Request) -> &'static str;
}

/// An action that the service's machine decides.
pub trait MachineAction: Action {
    /// Into the service's request enum.
    fn wrap(request: Self::Request) -> <Self::Words as ServiceWords>::Request;
    /// Out of the service's answer enum; `None` if the machine answered another action.
    fn unwrap(answer: <Self::Words as ServiceWords>::Answer) -> Option<Self::Answer>;
}

/// Walks over all declared actions with their types.
pub trait Visitor {
    /// A machine action.
    fn machine<A: MachineAction>(&mut self);
    /// A machine action whose answer depends on nothing but the view and the request: no clock, no
    /// caller. It may be given again as long as the view stays as it is.
    fn cached<A: MachineAction>(&mut self)
    where
        A::Request: Eq + std::hash::Hash,
    {
        self.machine::<A>();
    }
    /// A front action.
    fn front<A: Action>(&mut self);
    /// A stream.
    fn stream<A: StreamAction>(&mut self);
}

/// Whatever can carry a call to an action: the bus in process, an HTTP client from outside.
pub trait Call {
    /// Calls `A` and waits for its answer.
    fn call<A: Action>(
        &self,
        request: A::Request,
    ) -> impl std::future::Future<Output = Result<A::Answer, Problem>> + Send;
}

/// Declares the actions of one service.
///
/// Each line: `Type verb(Request) -> Answer, kind, access;` under `machine` or `front`; a machine's query
/// may end in `, cached` (see [`Visitor::cached`](crate::action::Visitor::cached)). Under `stream`, where
/// there is one: `Type verb(Request) -> Item, content, access;`. See `protocol/src/words/` for real ones.
#[macro_export]
macro_rules! actions {
    (
        service $service:ident;
        machine {
            $( $(#[doc = $mdoc:literal])+ $mname:ident $mverb:ident ($mreq:ty) -> $mans:ty, $mkind:ident, $maccess:ident $(, $mcached:ident)?; )*
        }
        front {
            $( $(#[doc = $fdoc:literal])+ $fname:ident $fverb:ident ($freq:ty) -> $fans:ty, $fkind:ident, $faccess:ident; )*
        }
        $(stream {
            $( $(#[doc = $sdoc:literal])+ $sname:ident $sverb:ident ($sreq:ty) -> $sitem:ty, $scontent:ident, $saccess:ident; )*
        })?
    ) => {
        /// This service's words.
        #[derive(Debug)]
        pub enum Words {}

        /// What this service's machine can be asked: one variant an action.
        #[allow(clippy::large_enum_variant)]
        #[derive(Clone, Debug)]
        pub enum Request {
            $( $(#[doc = $mdoc])+ $mname($mreq), )*
        }

        /// What this service's machine answers: one variant an action.
        // An answer moves once, into its caller's channel: boxing the large ones would cost more.
        #[allow(clippy::large_enum_variant)]
        #[derive(Clone, Debug, PartialEq)]
        pub enum Answer {
            $( #[doc = concat!("Answer to `", stringify!($mverb), "`.")] $mname($mans), )*
        }

        impl $crate::action::ServiceWords for Words {
            const SERVICE: $crate::Service = $crate::Service::$service;
            type Request = Request;
            type Answer = Answer;
            fn verb(request: &Request) -> &'static str {
                match *request {
                    $( Request::$mname(_) => stringify!($mverb), )*
                }
            }
        }

        $(
            $(#[doc = $mdoc])+
            #[derive(Debug)]
            pub enum $mname {}
            $crate::actions!(@action $service, $mname, $mverb, $mreq, $mans, $mkind, $maccess, Machine, [$($mdoc)+]);
            impl $crate::action::MachineAction for $mname {
                fn wrap(request: $mreq) -> Request {
                    Request::$mname(request)
                }
                #[allow(unreachable_patterns)]
                fn unwrap(answer: Answer) -> Option<$mans> {
                    match answer {
                        Answer::$mname(answer) => Some(answer),
                        _ => None,
                    }
                }
            }
        )*
        $(
            $(#[doc = $fdoc])+
            #[derive(Debug)]
            pub enum $fname {}
            $crate::actions!(@action $service, $fname, $fverb, $freq, $fans, $fkind, $faccess, Front, [$($fdoc)+]);
        )*
        $($(
            $(#[doc = $sdoc])+
            #[derive(Debug)]
            pub enum $sname {}
            impl $crate::action::StreamAction for $sname {
                type Request = $sreq;
                type Item = $sitem;
                const INFO: $crate::action::ActionInfo = $crate::actions!(
                    @info $service, $sverb, $sreq, $sitem, Query, $saccess,
                    $crate::action::Handler::Stream($crate::action::Content::$scontent), [$($sdoc)+]
                );
            }
        )*)?

        /// Calls `visitor` once for each action of this service.
        pub fn visit<V: $crate::action::Visitor>(visitor: &mut V) {
            $( $crate::actions!(@visit visitor, $mname $(, $mcached)?); )*
            $( visitor.front::<$fname>(); )*
            $($( visitor.stream::<$sname>(); )*)?
        }

        /// This service's actions as methods, over anything that can carry a call.
        #[derive(Clone, Copy, Debug)]
        pub struct Client<'a, C>(pub &'a C);

        impl<C: $crate::action::Call> Client<'_, C> {
            $(
                $(#[doc = $mdoc])+
                ///
                /// # Errors
                ///
                /// The service's refusals, and those of the carrier.
                pub fn $mverb(&self, request: $mreq)
                    -> impl ::core::future::Future<Output = Result<$mans, $crate::Problem>> + ::core::marker::Send {
                    self.0.call::<$mname>(request)
                }
            )*
            $(
                $(#[doc = $fdoc])+
                ///
                /// # Errors
                ///
                /// The service's refusals, and those of the carrier.
                pub fn $fverb(&self, request: $freq)
                    -> impl ::core::future::Future<Output = Result<$fans, $crate::Problem>> + ::core::marker::Send {
                    self.0.call::<$fname>(request)
                }
            )*
        }
    };
    (@visit $visitor:ident, $name:ident) => {
        $visitor.machine::<$name>();
    };
    (@visit $visitor:ident, $name:ident, cached) => {
        $visitor.cached::<$name>();
    };
    (@action $service:ident, $name:ident, $verb:ident, $req:ty, $ans:ty, $kind:ident, $access:ident, $handler:ident, [$($doc:literal)+]) => {
        impl $crate::action::Action for $name {
            type Request = $req;
            type Answer = $ans;
            type Words = Words;
            const INFO: $crate::action::ActionInfo = $crate::actions!(
                @info $service, $verb, $req, $ans, $kind, $access, $crate::action::Handler::$handler, [$($doc)+]
            );
        }
    };
    (@info $service:ident, $verb:ident, $req:ty, $ans:ty, $kind:ident, $access:ident, $handler:expr, [$($doc:literal)+]) => {
        $crate::action::ActionInfo {
            name: $crate::actions!(@name $service $verb),
            service: $crate::Service::$service,
            verb: stringify!($verb),
            doc: concat!($($doc, "\n"),+),
            kind: $crate::action::Kind::$kind,
            access: $crate::action::Access::$access,
            handler: $handler,
            request_schema: |generator| generator.subschema_for::<$req>(),
            answer_schema: |generator| generator.subschema_for::<$ans>(),
        }
    };
    (@name Nucleus $verb:ident) => { concat!("nucleus.", stringify!($verb)) };
    (@name Identity $verb:ident) => { concat!("identity.", stringify!($verb)) };
    (@name Message $verb:ident) => { concat!("message.", stringify!($verb)) };
    (@name State $verb:ident) => { concat!("state.", stringify!($verb)) };
    (@name Consensus $verb:ident) => { concat!("consensus.", stringify!($verb)) };
    (@name Market $verb:ident) => { concat!("market.", stringify!($verb)) };
}
