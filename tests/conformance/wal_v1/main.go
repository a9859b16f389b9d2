// Command wal_v1 checks a Klio WAL server as an existing client of klio.wal.v1 sees it: mutual TLS, the calls, their order,
// their answers and their status codes. It shares no code with the server; the only thing it reads of it is the .proto
// file. It prints one JSON object per case and fails when a case fails.
package main

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"time"
)

const caseTimeout = 60 * time.Second

// world is what every case gets: a server, and clusters of its own on it.
type world struct {
	ctx       context.Context
	schema    *schema
	authority *authority
	address   string
	name      string
	clients   int
	closers   []func()
}

type outcome struct {
	Case    string `json:"case"`
	Failure string `json:"failure,omitempty"`
}

type failure string

func run(name string, body func(*world), base world) (result outcome) {
	result.Case = name
	ctx, cancel := context.WithTimeout(context.Background(), caseTimeout)
	w := base
	w.ctx = ctx
	defer func() {
		for _, closer := range w.closers {
			closer()
		}
		cancel()
		if found := recover(); found != nil {
			if message, expected := found.(failure); expected {
				result.Failure = string(message)
			} else {
				panic(found)
			}
		}
	}()
	body(&w)
	return result
}

// tls is the configuration of existing clients: TLS 1.3, exactly the given roots, the name is verified.
func (w *world) tls(commonName string) *tls.Config {
	config := &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: w.authority.roots, ServerName: "localhost"}
	if commonName != "" {
		certificate, err := w.authority.issue(commonName)
		w.must(err)
		config.Certificates = []tls.Certificate{certificate}
	}
	return config
}

// client connects as the cluster's client.
func (w *world) client(cluster string) *client {
	return w.connect(w.tls("klio@"+cluster), cluster, messageBytesMax)
}

func (w *world) connect(config *tls.Config, cluster string, sendBytesMax int) *client {
	conn, err := dial(w.address, config, sendBytesMax)
	w.must(err)
	w.closers = append(w.closers, func() { _ = conn.Close() })
	return &client{schema: w.schema, conn: conn, cluster: cluster}
}

func main() {
	protoRoot := flag.String("proto", "", "directory that holds klio/wal/v1/wal.proto")
	address := flag.String("address", "", "host:port of the WAL server")
	caCert := flag.String("ca-cert", "", "authority of server and clients, PEM")
	caKey := flag.String("ca-key", "", "its key, PEM")
	flag.Parse()
	if err := runAll(*protoRoot, *address, *caCert, *caKey); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func runAll(protoRoot, address, caCert, caKey string) error {
	schema, err := loadSchema(protoRoot)
	if err != nil {
		return err
	}
	authority, err := loadAuthority(caCert, caKey)
	if err != nil {
		return err
	}
	base := world{schema: schema, authority: authority, address: address}
	failed := 0
	output := json.NewEncoder(os.Stdout)
	for index, test := range cases {
		base.name = fmt.Sprintf("cluster-%d", index)
		result := run(test.name, test.body, base)
		if result.Failure != "" {
			failed++
		}
		if err := output.Encode(result); err != nil {
			return err
		}
	}
	if failed > 0 {
		return fmt.Errorf("%d of %d cases failed", failed, len(cases))
	}
	return nil
}
