//! Against small servers on loopback that speak the providers' protocols.

use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::TcpListener,
};

use super::*;

type Requests = Arc<Mutex<Vec<String>>>;

/// Answers each request head (lower-cased, lines joined by `\n`) with what `reply` says. Ends with the test's runtime.
async fn server(reply: impl Fn(&str) -> String + Send + Sync + 'static) -> (String, Requests) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let requests = Requests::default();
    let seen = requests.clone();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let mut stream = BufReader::new(stream);
            let mut head = String::new();
            loop {
                let mut line = String::new();
                if stream.read_line(&mut line).await.unwrap() == 0 || line == "\r\n" {
                    break;
                }
                head += &line.trim_end().to_lowercase();
                head.push('\n');
            }
            let answer = reply(&head);
            seen.lock().unwrap().push(head);
            let _ = stream.get_mut().write_all(answer.as_bytes()).await;
        }
    });
    (url, requests)
}

fn http(status: &str, headers: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\n{headers}Connection: close\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

const GOOGLE: &str = "Metadata-Flavor: Google\r\nServer: Metadata Server for VM\r\n";

fn google(head: &str) -> String {
    let path = "get /computemetadata/v1/instance/network-interfaces/0/access-configs/0/external-ip ";
    match (head.starts_with(path), head.contains("metadata-flavor: google\n")) {
        (true, true) => http("200 OK", GOOGLE, "203.0.113.7"),
        (true, false) => http("403 Forbidden", GOOGLE, ""),
        _ => http("404 Not Found", GOOGLE, ""),
    }
}

fn amazon(head: &str) -> String {
    if head.starts_with("put /latest/api/token ") && head.contains("token-ttl-seconds: 60\n") {
        http("200 OK", "", "AQAEAtoken==")
    } else if head.starts_with("get /latest/meta-data/public-ipv4 ") {
        match head.contains("x-aws-ec2-metadata-token: aqaeatoken==\n") {
            true => http("200 OK", "", "198.51.100.9\n"),
            false => http("401 Unauthorized", "", ""),
        }
    } else {
        http("404 Not Found", "", "")
    }
}

/// Endpoints where nobody listens but the given ones.
async fn endpoints(gce: Option<&str>, aws: Option<&str>, azure: Option<&str>) -> Endpoints {
    // A port that was free a moment ago refuses at once.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let nobody = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let or_nobody = |url: Option<&str>| url.map_or_else(|| nobody.clone(), str::to_owned);
    Endpoints { gce: or_nobody(gce), aws: Some(or_nobody(aws)), azure: or_nobody(azure) }
}

#[tokio::test]
async fn google_tells_the_external_address() {
    let (url, _) = server(google).await;
    let ip = endpoints(Some(&url), None, None).await.external_ip(Provider::Gce).await;
    assert_eq!(ip.unwrap().to_string(), "203.0.113.7");
}

#[tokio::test]
async fn who_does_not_say_google_is_not_believed() {
    let (url, _) = server(|_| http("200 OK", "", "203.0.113.7")).await;
    let error = endpoints(Some(&url), None, None).await.external_ip(Provider::Gce).await.unwrap_err();
    assert!(matches!(error, MetadataError::Other { provider: Provider::Gce, .. }), "{error}");
    assert!(error.to_string().contains("Metadata-Flavor: Google"), "{error}");
}

#[tokio::test]
async fn aws_is_asked_with_a_token() {
    let (url, requests) = server(amazon).await;
    let ip = endpoints(None, Some(&url), None).await.external_ip(Provider::Aws).await;
    assert_eq!(ip.unwrap().to_string(), "198.51.100.9");
    assert_eq!(requests.lock().unwrap().len(), 2);
}

#[tokio::test]
async fn azure_is_asked_with_its_header() {
    let (url, _) = server(|head| match head.contains("metadata: true\n") {
        true => http("200 OK", "Content-Type: text/plain\r\n", "192.0.2.44"),
        false => http("400 Bad Request", "", ""),
    })
    .await;
    let ip = endpoints(None, None, Some(&url)).await.external_ip(Provider::Azure).await;
    assert_eq!(ip.unwrap().to_string(), "192.0.2.44");
}

#[tokio::test]
async fn auto_finds_whichever_provider_is_there() {
    let (gce, _) = server(google).await;
    let (aws, _) = server(amazon).await;
    // On a real instance all three share one address: the others' answers must not mislead.
    for (there, address) in [(&gce, "203.0.113.7"), (&aws, "198.51.100.9")] {
        let all = endpoints(Some(there), Some(there), Some(there)).await;
        assert_eq!(all.external_ip(Provider::Auto).await.unwrap().to_string(), address);
    }
}

#[tokio::test]
async fn off_a_cloud_the_error_says_what_to_do() {
    for provider in [Provider::Gce, Provider::Aws, Provider::Azure, Provider::Auto] {
        let error = endpoints(None, None, None).await.external_ip(provider).await.unwrap_err().to_string();
        assert!(error.starts_with("no cloud metadata service answers at http://127.0.0.1:"), "{error}");
        assert!(error.ends_with("give the address by -advertised-ip"), "{error}");
        assert!(error.contains("Connection refused"), "{error}");
    }
}

#[tokio::test]
async fn an_instance_without_an_external_address_is_told_so() {
    for reply in [http("404 Not Found", GOOGLE, "not found"), http("200 OK", GOOGLE, "")] {
        let (url, _) = server(move |_| reply.clone()).await;
        // Also by Auto, although the other two providers are not there at all.
        for provider in [Provider::Gce, Provider::Auto] {
            let error = endpoints(Some(&url), None, None).await.external_ip(provider).await.unwrap_err();
            assert_eq!(error, MetadataError::NoExternalAddress { provider: Provider::Gce });
        }
    }
}

#[tokio::test]
async fn an_answer_that_is_no_address_is_shown() {
    let (url, _) = server(|_| http("200 OK", GOOGLE, "<html>captive portal</html>")).await;
    let error = endpoints(Some(&url), None, None).await.external_ip(Provider::Gce).await.unwrap_err();
    assert!(error.to_string().contains("<html>captive portal</html>"), "{error}");
}

#[tokio::test]
async fn a_busy_service_is_asked_again() {
    let times = Mutex::new(0);
    let (url, requests) = server(move |head| {
        let mut times = times.lock().unwrap();
        *times += 1;
        if *times < 3 { http("503 Service Unavailable", GOOGLE, "") } else { google(head) }
    })
    .await;
    let ip = endpoints(Some(&url), None, None).await.external_ip(Provider::Gce).await;
    assert_eq!(ip.unwrap().to_string(), "203.0.113.7");
    assert_eq!(requests.lock().unwrap().len(), 3);
}

#[tokio::test]
async fn a_service_that_never_answers_costs_two_seconds() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let begin = Instant::now();
    let all = endpoints(Some(&url), Some(&url), Some(&url)).await;
    let error = all.external_ip(Provider::Auto).await.unwrap_err();
    assert!(begin.elapsed() < Duration::from_secs(5), "{:?}", begin.elapsed());
    assert!(error.to_string().contains("no answer within 2 s"), "{error}");
}

#[tokio::test]
async fn an_endless_answer_is_cut() {
    let (url, _) = server(|_| http("200 OK", GOOGLE, &"1".repeat(1 << 20))).await;
    let error = endpoints(Some(&url), None, None).await.external_ip(Provider::Gce).await.unwrap_err();
    assert!(error.to_string().contains("limit"), "{error}");
}

#[test]
fn the_environment_moves_the_services_as_in_their_own_libraries() {
    let from = |pairs: &'static [(&str, &str)]| {
        Endpoints::from_variables(|name| pairs.iter().find(|(n, _)| *n == name).map(|(_, v)| (*v).to_owned()))
    };
    assert_eq!(from(&[]).unwrap(), Endpoints::default());
    assert_eq!(from(&[("GCE_METADATA_HOST", "127.0.0.1:8080")]).unwrap().gce, "http://127.0.0.1:8080");
    let aws = from(&[("AWS_EC2_METADATA_SERVICE_ENDPOINT", "http://[fd00:ec2::254]/")]).unwrap();
    assert_eq!(aws.aws.as_deref(), Some("http://[fd00:ec2::254]"));
    assert_eq!(from(&[("AWS_EC2_METADATA_DISABLED", "TRUE")]).unwrap().aws, None);

    let error = from(&[("GCE_METADATA_HOST", "http://x/")]).unwrap_err().to_string();
    assert!(error.contains("GCE_METADATA_HOST=\"http://x/\"") && error.contains("HOST:PORT"), "{error}");
    let error = from(&[("AWS_EC2_METADATA_SERVICE_ENDPOINT", "127.0.0.1")]).unwrap_err().to_string();
    assert!(error.contains("write http://HOST"), "{error}");
}
