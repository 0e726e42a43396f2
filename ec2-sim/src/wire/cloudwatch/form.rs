//! Trees in the Query protocol: `A.B.member.1.C=value` in requests, XML in answers.

use std::collections::BTreeMap;

use super::VERSION;
use super::tree::Tree;
use crate::model::ApiError;
use crate::wire::query::unescape;
use crate::wire::xml::Xml;

/// What precedes the index of a list's element.
const MEMBER: &str = "member";
/// Longest path of a parameter: no structure of CloudWatch's is as deep.
const MAX_DEPTH: usize = 16;

/// A parameter's value, or the parameters below it.
#[derive(Debug, Default)]
struct Node {
    value: Option<String>,
    below: BTreeMap<String, Node>,
}

/// The action, and its parameters.
pub(super) fn read(form: &[u8]) -> Result<(String, Tree), ApiError> {
    let malformed = || ApiError::client("MalformedQueryString", "The query string contains a syntax error");
    let form = std::str::from_utf8(form).map_err(|_| malformed())?;
    let mut root = Node::default();
    for pair in form.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let name = unescape(name)?;
        if name.split('.').count() > MAX_DEPTH {
            return Err(malformed());
        }
        let node = name.split('.').fold(&mut root, |node, part| node.below.entry(part.to_owned()).or_default());
        node.value = Some(unescape(value)?);
    }
    let version = root.below.remove("Version").and_then(|node| node.value).unwrap_or_default();
    if version != VERSION {
        let message = format!("The requested version ({version}) of service CloudWatch does not exist");
        return Err(ApiError::client("NoSuchVersion", message));
    }
    let action = root.below.remove("Action").and_then(|node| node.value);
    let none = || ApiError::client("MissingAction", "No action was supplied with this request.");
    Ok((action.ok_or_else(none)?, Tree::Map(members(root.below))))
}

fn members(below: BTreeMap<String, Node>) -> Vec<(String, Tree)> {
    below.into_iter().map(|(name, node)| (name, tree(node))).collect()
}

fn tree(mut node: Node) -> Tree {
    if let Some(list) = node.below.remove(MEMBER) {
        // By number: as texts, 10 would come before 2.
        let mut items: Vec<(u32, Tree)> =
            list.below.into_iter().map(|(index, item)| (index.parse().unwrap_or(u32::MAX), tree(item))).collect();
        items.sort_by_key(|(index, _)| *index);
        return Tree::List(items.into_iter().map(|(_, item)| item).collect());
    }
    match node.value {
        Some(value) => Tree::Raw(value),
        None => Tree::Map(members(node.below)),
    }
}

/// The answer to an action, in the wrapping of the Query protocol.
pub(super) fn write(action: &str, result: &Tree, request_id: &str) -> String {
    Xml::document(&format!("{action}Response"), &namespace(), |xml| {
        if matches!(result, Tree::Map(members) if !members.is_empty()) {
            element(xml, &format!("{action}Result"), result);
        }
        xml.nested("ResponseMetadata", |xml| xml.text("RequestId", request_id));
    })
}

/// An error answer; `sender`: whether the caller is to blame.
pub(super) fn write_error(error: &ApiError, sender: bool, request_id: &str) -> String {
    Xml::document("ErrorResponse", &namespace(), |xml| {
        xml.nested("Error", |xml| {
            xml.text("Type", if sender { "Sender" } else { "Receiver" });
            xml.text("Code", &error.code);
            xml.text("Message", &error.message);
        });
        xml.text("RequestId", request_id);
    })
}

fn namespace() -> String {
    format!(" xmlns=\"http://monitoring.amazonaws.com/doc/{VERSION}/\"")
}

fn element(xml: &mut Xml, name: &str, tree: &Tree) {
    match tree {
        Tree::Null => {}
        Tree::Bool(flag) => xml.text(name, flag),
        Tree::Number(number) => xml.text(name, number),
        Tree::Text(text) | Tree::Raw(text) => xml.text(name, text),
        Tree::Time(time) => {
            let millis = i64::try_from(time.0).unwrap_or(i64::MAX);
            xml.text(name, jiff::Timestamp::from_millisecond(millis).unwrap_or(jiff::Timestamp::MAX));
        }
        Tree::List(items) => xml.nested(name, |xml| items.iter().for_each(|item| element(xml, MEMBER, item))),
        Tree::Map(members) => {
            xml.nested(name, |xml| members.iter().for_each(|(name, member)| element(xml, name, member)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_come_in_the_order_of_their_numbers() {
        let form = b"Action=A&Version=2010-08-01&L.member.10.N=j&L.member.2.N=b&V=1+2&E=";
        let item = |text: &str| Tree::map([("N", Tree::Raw(text.to_owned()))]);
        let tree = Tree::map([
            ("E", Tree::Raw(String::new())),
            ("L", Tree::List(vec![item("b"), item("j")])),
            ("V", Tree::Raw("1 2".to_owned())),
        ]);
        assert_eq!(read(form).unwrap(), ("A".to_owned(), tree));
    }

    #[test]
    fn a_form_without_an_action_or_too_deep_is_refused() {
        assert_eq!(read(b"Version=2010-08-01").unwrap_err().code, "MissingAction");
        assert_eq!(read(b"Action=A&Version=2016-11-15").unwrap_err().code, "NoSuchVersion");
        let deep = format!("Action=A&Version=2010-08-01&{}=1", vec!["a"; 100_000].join("."));
        assert_eq!(read(deep.as_bytes()).unwrap_err().code, "MalformedQueryString");
    }

    #[test]
    fn an_answer_is_wrapped_with_lists_as_members() {
        let result = Tree::map([("Metrics", Tree::list(["a<b"], Tree::text)), ("NextToken", Tree::Null)]);
        let xml = write("ListMetrics", &result, "id-1");
        assert!(
            xml.contains("<ListMetricsResult><Metrics><member>a&lt;b</member></Metrics></ListMetricsResult>"),
            "{xml}"
        );
        assert!(
            write("PutMetricData", &Tree::Map(Vec::new()), "id-1").contains("\"><ResponseMetadata><RequestId>id-1<")
        );
    }
}
