//! Generic, recursive and numbered messages.

#![deny(warnings)]

use std::fmt::Debug;

#[ringcall::message]
#[derive(Debug)]
struct Page<T: Debug>
where
    T: Clone,
{
    items: Vec<T>,
    next: Option<u64>,
}

#[ringcall::message]
#[derive(Clone, Debug)]
struct Pair<A, B = A>(A, B);

#[ringcall::message]
#[derive(Clone, Debug)]
enum Either<A, B>
where
    A: Clone,
{
    Left(A),
    Right { b: Option<Box<B>> },
    Neither,
}

/// Of any type, to any depth.
#[ringcall::message]
#[derive(Clone, Debug)]
struct Rose<T> {
    value: T,
    branches: Vec<Rose<T>>,
    up: Option<Box<Self>>,
}

#[ringcall::message]
#[derive(Clone, Debug)]
struct Block<const N: usize = 4> {
    bytes: [u8; N],
}

#[ringcall::message]
#[derive(Clone, Debug)]
struct Tree {
    children: Vec<Tree>,
    link: Link,
}

type Link = Option<Box<Tree>>;

#[ringcall::message]
#[derive(Clone, Debug)]
enum Expression {
    Number(f64),
    Sum(Box<(Expression, Expression)>),
    Call { name: String, arguments: Vec<Argument> },
}

#[ringcall::message]
#[derive(Clone, Debug)]
struct Argument {
    value: Option<Box<Expression>>,
}

#[ringcall::message]
#[derive(Clone, Copy, Debug)]
#[repr(u8)]
enum Side {
    Buy = b'B',
    Sell = b'S',
    Short,
}

fn is_debug<T: ringcall::Message<Received<ringcall::Body>: Debug>>() {}

#[ringcall::service]
trait Things {
    async fn pages(&self, page: Page<Pair<Tree, Expression>>) -> Page<Block<16>>;
    async fn either(&self, either: Either<Rose<u8>, String>) -> ringcall::Bytes;
    async fn rose(&self) -> Rose<Option<(u8, [Side; 2])>>;
    async fn pair(&self, pair: ringcall::View<Pair<Side>>) -> Block;
}

struct Book;

impl Things for Book {
    async fn pages(&self, page: Page<Pair<Tree, Expression>>) -> Page<Block<16>> {
        Page { items: Vec::new(), next: page.next }
    }

    async fn either(&self, either: Either<Rose<u8>, String>) -> ringcall::Bytes {
        match either {
            Either::Left(rose) => vec![rose.value].into(),
            Either::Right { b: Some(b) } => b.into_bytes().into(),
            Either::Right { b: None } | Either::Neither => ringcall::Bytes::new(),
        }
    }

    async fn rose(&self) -> Rose<Option<(u8, [Side; 2])>> {
        Rose { value: None, branches: Vec::new(), up: None }
    }

    async fn pair(&self, _: ringcall::View<Pair<Side>>) -> Block {
        Block { bytes: [Side::Buy as u8, Side::Sell as u8, Side::Short as u8, 0] }
    }
}

#[test]
fn it_is_accepted() {
    let _ = Book.into_things();
    is_debug::<Page<Rose<Either<Tree, Expression>>>>();
    let _ = Expression::Sum(Box::new((
        Expression::Number(1.0),
        Expression::Call { name: String::new(), arguments: vec![Argument { value: None }] },
    )));
}
