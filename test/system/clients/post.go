// Posts with what Go brings along: go run post.go URL CERT KEY CA → one line per answer, "PROTOCOL STATUS".
package main

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"strings"
	"time"
)

const body = `{"sender_number":"+4915112345678","message_body":"from Go"}`

func config(cert, key, ca string) *tls.Config {
	own, err := tls.LoadX509KeyPair(cert, key)
	if err != nil {
		log.Fatal(err)
	}
	pem, err := os.ReadFile(ca)
	if err != nil {
		log.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	return &tls.Config{Certificates: []tls.Certificate{own}, RootCAs: roots}
}

// A reader whose length is not known is sent in chunks.
type piece struct{ io.Reader }

func post(client *http.Client, url string, content io.Reader, expect bool) {
	request, err := http.NewRequest("POST", url+"/api/v1/messages", content)
	if err != nil {
		log.Fatal(err)
	}
	request.Header.Set("Content-Type", "application/json")
	if expect {
		request.Header.Set("Expect", "100-continue")
	}
	answer, err := client.Do(request)
	if err != nil {
		log.Fatal(err)
	}
	defer answer.Body.Close()
	if _, err := io.Copy(io.Discard, answer.Body); err != nil {
		log.Fatal(err)
	}
	fmt.Println(answer.Proto, answer.StatusCode)
}

func main() {
	for _, http2 := range []bool{false, true} {
		transport := &http.Transport{
			TLSClientConfig:       config(os.Args[2], os.Args[3], os.Args[4]),
			ForceAttemptHTTP2:     http2,
			ExpectContinueTimeout: 30 * time.Second,
		}
		client := &http.Client{Transport: transport}
		post(client, os.Args[1], strings.NewReader(body), false)
		post(client, os.Args[1], strings.NewReader(body), true)
		post(client, os.Args[1], piece{strings.NewReader(body)}, false)
	}
}
