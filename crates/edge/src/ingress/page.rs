//! Answers that the edge gives itself, in words for whoever reads them.

use bytes::Bytes;
use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::{Response, StatusCode};

use super::body::AnswerBody;

/// Something went wrong, or has to be done another way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Page {
    pub(super) status: StatusCode,
    /// What happened, a sentence.
    pub(super) what: String,
    /// What may help, a sentence; empty if nothing does.
    pub(super) hint: String,
    /// Seconds after which it may be worth trying again.
    pub(super) retry_after: Option<u32>,
    /// Where to go instead.
    pub(super) location: Option<HeaderValue>,
}

impl Page {
    pub(super) fn new(
        status: StatusCode,
        what: impl Into<String>,
        hint: impl Into<String>,
    ) -> Self {
        Self {
            status,
            what: what.into(),
            hint: hint.into(),
            retry_after: None,
            location: None,
        }
    }

    /// The same, worth trying again.
    pub(super) fn retry(mut self, seconds: u32) -> Self {
        self.retry_after = Some(seconds);
        self
    }

    /// The answer, as HTML for those who ask for it and as text for all others.
    pub(super) fn answer(&self, html: bool) -> Response<AnswerBody> {
        let (kind, text) = if html {
            ("text/html; charset=utf-8", self.html())
        } else {
            ("text/plain; charset=utf-8", self.text())
        };
        let mut response = Response::new(AnswerBody::page(Bytes::from(text)));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some(seconds) = self.retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if let Some(location) = &self.location {
            headers.insert(header::LOCATION, location.clone());
        }
        response
    }

    fn text(&self) -> String {
        let hint = match self.hint.as_str() {
            "" => String::new(),
            hint => format!("{hint}\n"),
        };
        format!("{}\n{}\n{hint}", self.status, self.what)
    }

    fn html(&self) -> String {
        let status = self.status.to_string();
        let (what, hint) = (escape(&self.what), escape(&self.hint));
        format!(
            "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n<title>{status}</title>\n\
             <style>body{{font:1rem/1.5 system-ui,sans-serif;max-width:40rem;margin:4rem auto;padding:0 1rem}}</style>\n\
             <h1>{status}</h1>\n<p>{what}</p>\n<p>{hint}</p>\n</html>\n"
        )
    }
}

/// Whether a client asks for HTML.
pub(super) fn wants_html(headers: &HeaderMap) -> bool {
    let mut accepts = headers.get_all(header::ACCEPT).iter();
    accepts.any(|value| {
        value
            .to_str()
            .is_ok_and(|value| value.contains("text/html"))
    })
}

fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_client_sent_is_no_markup() {
        let page = Page::new(StatusCode::BAD_GATEWAY, "<script>&\"'", "hint");
        assert!(
            page.html()
                .contains("<p>&lt;script&gt;&amp;&quot;&#39;</p>")
        );
        assert_eq!(page.text(), "502 Bad Gateway\n<script>&\"'\nhint\n");
    }
}
