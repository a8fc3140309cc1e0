use proptest::prelude::*;

use super::*;

fn json(text: &str) -> Result<Tree, TreeError> {
    parse_json(text.as_bytes(), &Limits::default())
}

fn yaml(text: &str) -> Result<Tree, TreeError> {
    parse_yaml(text.as_bytes(), &Limits::default())
}

fn text(value: &str) -> Tree {
    Tree::Str(value.into())
}

#[test]
fn both_languages_give_the_same_tree() {
    let wanted = Tree::Map(vec![
        ("a".into(), Tree::List(vec![Tree::Int(1), Tree::Float(1.5), Tree::Null, Tree::Bool(true)])),
        ("b".into(), Tree::Map(vec![("c".into(), text("x y"))])),
        ("d".into(), Tree::Int(u64::MAX.into())),
    ]);
    assert_eq!(json(r#"{"a":[1,1.5,null,true],"b":{"c":"x y"},"d":18446744073709551615}"#).unwrap(), wanted);
    let block = "# a comment\na: [1, 1.5, ~, true]\nb:\n  c: x y\nd: 18446744073709551615\n";
    assert_eq!(yaml(block).unwrap(), wanted);
    assert_eq!(parse(block.as_bytes(), &Limits::default()).unwrap(), wanted);
    let flow = b"{a: [1, 1.5, ~, true], b: {c: 'x y'}, d: 18446744073709551615}";
    assert_eq!(parse(flow, &Limits::default()).unwrap(), wanted);
}

#[test]
fn a_key_given_twice_is_refused_with_its_place() {
    for error in [
        json("{\"Tasks\":[{\"Name\":\"a\",\n\"Name\":\"b\"}]}").unwrap_err(),
        yaml("Tasks:\n- Name: a\n  Name: b\n").unwrap_err(),
    ] {
        assert_eq!(error.fault, Fault::DuplicateKey("Name".into()));
        assert_eq!(error.path, "Tasks[0].Name");
        assert!(error.line > 0, "{error}");
    }
    // Environment variables differ in case only often enough; where keys are read without case, `fields` looks.
    assert!(json(r#"{"HTTP_PROXY":"a","http_proxy":"b"}"#).is_ok());
}

#[test]
fn syntax_errors_name_line_and_column() {
    let error = json("{\n  \"a\": ,\n}").unwrap_err();
    assert_eq!((error.line, error.path.as_str()), (2, "a"));
    assert_eq!(error.to_string(), "line 2, column 8 (a): expected value");
    let error = yaml("a: [1, 2\nb: 3\n").unwrap_err();
    assert!(error.line >= 1 && matches!(error.fault, Fault::Syntax(_)), "{error}");
    // The first character decides which parser's words are shown.
    assert!(parse(b"{\"a\": }}", &Limits::default()).unwrap_err().line == 1);
    assert!(json("{} {}").is_err() && yaml("a: 1\n---\nb: 2\n").is_err());
    assert!(json("\"a\0b\"").is_err() && yaml("a: b\0c").is_err());
    assert_eq!(json("{\"a\\u0000\":1}").unwrap_err().fault, Fault::BadKey);
    assert!(json("").is_err());
    assert_eq!(yaml("").unwrap(), Tree::Null);
}

#[test]
fn depth_is_bounded() {
    let nested = |n: usize| "[".repeat(n) + &"]".repeat(n);
    assert!(json(&nested(64)).is_ok() && yaml(&nested(64)).is_ok());
    assert_eq!(json(&nested(65)).unwrap_err().fault, Fault::TooDeep(64));
    assert_eq!(yaml(&nested(65)).unwrap_err().fault, Fault::TooDeep(64));
    assert!(json(&nested(100_000)).is_err());
    let maps = "{\"a\":".repeat(65) + "1" + &"}".repeat(65);
    assert_eq!(json(&maps).unwrap_err().fault, Fault::TooDeep(64));
    assert!(yaml("a: &a [*a]").is_err(), "an alias inside itself");
}

#[test]
fn size_and_number_of_values_are_bounded() {
    let limits = Limits { bytes: 100, depth: 8, values: 10 };
    let parse = |text: &str| parse_json(text.as_bytes(), &limits);
    assert!(parse(&format!("\"{}\"", "x".repeat(98))).is_ok());
    assert_eq!(parse(&format!("\"{}\"", "x".repeat(99))).unwrap_err().fault, Fault::TooLarge(100));
    assert!(parse("[1,2,3,4,5,6,7,8,9]").is_ok());
    assert_eq!(parse("[1,2,3,4,5,6,7,8,9,0]").unwrap_err().fault, Fault::TooMany(10));
    assert_eq!(parse(r#"{"a":1,"b":2,"c":3,"d":4,"e":5}"#).unwrap_err().fault, Fault::TooMany(10));
}

#[test]
fn alias_bombs_end_at_a_limit() {
    let mut bomb = "a: &a [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for (name, before) in ('b'..='j').zip('a'..='i') {
        let uses = format!("*{before}, ").repeat(10);
        bomb.push_str(&format!("{name}: &{name} [{uses}]\n"));
    }
    let error = yaml(&bomb).unwrap_err();
    assert!(matches!(error.fault, Fault::TooMany(_) | Fault::Syntax(_)), "{error}");
    // Few values, many bytes.
    let long = format!("a: &a {}\nb: [{}]\n", "x".repeat(1 << 20), "*a, ".repeat(1000));
    assert_eq!(yaml(&long).unwrap_err().fault, Fault::TooLarge(10 << 20));
}

#[test]
fn yaml_has_its_ways() {
    let merged = yaml("d: &d {CPU: 1, GPU: 2}\nr:\n  <<: *d\n  CPU: 3\n").unwrap();
    let Tree::Map(map) = &merged else { panic!("{merged:?}") };
    let wanted = Tree::Map(vec![("CPU".into(), Tree::Int(3)), ("GPU".into(), Tree::Int(2))]);
    assert_eq!(map[1].1, wanted);
    assert_eq!(yaml("1: a\ntrue: b\n").unwrap().kind(), "a map");
    assert_eq!(yaml("[1]: a").unwrap_err().fault, Fault::BadKey);
    assert!(matches!(yaml("a: !secret b").unwrap_err().fault, Fault::Tag(_)));
    assert_eq!(yaml("a: 'no'\nb: no\n").unwrap().kind(), "a map");
}

proptest! {
    #[test]
    fn nothing_panics(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = parse(&bytes, &Limits::default());
        let _ = parse_json(&bytes, &Limits::default());
        let _ = parse_yaml(&bytes, &Limits::default());
    }

    #[test]
    fn nothing_panics_on_what_looks_right(text in "[\\[\\]{}:,&*!<a-c\"'0-9. \n|>#~-]{0,120}") {
        let limits = Limits { bytes: 4096, depth: 16, values: 256 };
        let _ = parse(text.as_bytes(), &limits);
        let _ = parse_yaml(text.as_bytes(), &limits);
    }
}
