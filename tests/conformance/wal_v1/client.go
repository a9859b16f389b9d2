package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"os"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/protobuf/types/dynamicpb"
)

const (
	mib = 1 << 20
	// What existing clients and servers agree on: a block of 8 MiB and its frame.
	messageBytesMax = 8*mib + 512<<10
	windowBytes     = 256 << 10
)

// authority signs the certificates of the clusters that the cases invent.
type authority struct {
	certificate *x509.Certificate
	key         any
	roots       *x509.CertPool
}

func loadAuthority(certPath, keyPath string) (*authority, error) {
	certPem, err := os.ReadFile(certPath)
	if err != nil {
		return nil, err
	}
	keyPem, err := os.ReadFile(keyPath)
	if err != nil {
		return nil, err
	}
	pair, err := tls.X509KeyPair(certPem, keyPem)
	if err != nil {
		return nil, err
	}
	certificate, err := x509.ParseCertificate(pair.Certificate[0])
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(certPem)
	return &authority{certificate: certificate, key: pair.PrivateKey, roots: roots}, nil
}

func (a *authority) issue(commonName string) (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()),
		Subject:      pkix.Name{CommonName: commonName},
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().Add(time.Hour),
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.certificate, &key.PublicKey, a.key)
	if err != nil {
		return tls.Certificate{}, err
	}
	keyDer, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return tls.Certificate{}, err
	}
	return tls.X509KeyPair(
		pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDer}),
	)
}

// client speaks for one cluster over one connection.
type client struct {
	schema  *schema
	conn    *grpc.ClientConn
	cluster string
}

func dial(address string, config *tls.Config, sendBytesMax int) (*grpc.ClientConn, error) {
	return grpc.NewClient(
		"passthrough:///"+address,
		grpc.WithTransportCredentials(credentials.NewTLS(config)),
		grpc.WithInitialWindowSize(windowBytes),
		grpc.WithInitialConnWindowSize(windowBytes),
		grpc.WithDefaultCallOptions(
			grpc.MaxCallRecvMsgSize(messageBytesMax),
			grpc.MaxCallSendMsgSize(sendBytesMax),
		),
	)
}

func path(method string) string { return "/" + serviceName + "/" + method }

// unary makes a call with one message each way.
func (c *client) unary(ctx context.Context, method string, request fields) (*dynamicpb.Message, error) {
	descriptor := c.schema.method(method)
	response := dynamicpb.NewMessage(descriptor.Output())
	err := c.conn.Invoke(ctx, path(method), build(descriptor.Input(), request), response)
	return response, err
}

// put is an upload in progress.
type put struct {
	client *client
	stream grpc.ClientStream
}

func (c *client) openPut(ctx context.Context) (*put, error) {
	stream, err := c.conn.NewStream(ctx, &grpc.StreamDesc{ClientStreams: true}, path("Put"))
	return &put{client: c, stream: stream}, err
}

func (p *put) send(request fields) error {
	return p.stream.SendMsg(build(p.client.schema.method("Put").Input(), request))
}

// finish closes the upload and returns written_size.
func (p *put) finish() (uint64, error) {
	if err := p.stream.CloseSend(); err != nil {
		return 0, err
	}
	response := dynamicpb.NewMessage(p.client.schema.method("Put").Output())
	if err := p.stream.RecvMsg(response); err != nil {
		return 0, err
	}
	return get(response, "written_size").Uint(), nil
}

// upload sends messages and returns written_size. A server may refuse before all is sent: its status counts.
func (c *client) upload(ctx context.Context, messages ...fields) (uint64, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	upload, err := c.openPut(ctx)
	if err != nil {
		return 0, err
	}
	for _, message := range messages {
		if err := upload.send(message); err != nil && !errors.Is(err, io.EOF) {
			return 0, err
		} else if err != nil {
			break
		}
	}
	return upload.finish()
}

// file is a download: its content and the messages it came in.
type file struct {
	content     []byte
	blocks      []int
	segmentSize uint64
}

func (c *client) download(ctx context.Context, name string) (*file, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	method := c.schema.method("Get")
	stream, err := c.conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true}, path("Get"))
	if err != nil {
		return nil, err
	}
	request := build(method.Input(), fields{"cluster_name": c.cluster, "wal_name": name})
	if err := stream.SendMsg(request); err != nil {
		return nil, err
	}
	if err := stream.CloseSend(); err != nil {
		return nil, err
	}
	var result file
	for {
		response := dynamicpb.NewMessage(method.Output())
		if err := stream.RecvMsg(response); err == io.EOF {
			return &result, nil
		} else if err != nil {
			return nil, err
		}
		block := get(response, "wal_block").Bytes()
		size := get(response, "segment_size").Uint()
		if len(result.blocks) > 0 && size != result.segmentSize {
			return nil, fmt.Errorf("segment_size changed from %d to %d", result.segmentSize, size)
		}
		result.segmentSize = size
		result.blocks = append(result.blocks, len(block))
		result.content = append(result.content, block...)
	}
}
