package main

import (
	"context"
	"fmt"

	"github.com/bufbuild/protocompile"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/dynamicpb"
)

const serviceName = "klio.wal.v1.WAL"

// schema is the service as its .proto file tells it, read at run time: no generated code stands between the file and the
// wire.
type schema struct {
	service protoreflect.ServiceDescriptor
}

func loadSchema(protoRoot string) (*schema, error) {
	compiler := protocompile.Compiler{
		Resolver: protocompile.WithStandardImports(
			&protocompile.SourceResolver{ImportPaths: []string{protoRoot}},
		),
	}
	files, err := compiler.Compile(context.Background(), "klio/wal/v1/wal.proto")
	if err != nil {
		return nil, fmt.Errorf("compile wal.proto: %w", err)
	}
	found := files[0].FindDescriptorByName(serviceName)
	service, ok := found.(protoreflect.ServiceDescriptor)
	if !ok {
		return nil, fmt.Errorf("wal.proto has no service %s", serviceName)
	}
	return &schema{service: service}, nil
}

// fields of a message by their names in the .proto file.
type fields map[string]any

func (s *schema) method(name string) protoreflect.MethodDescriptor {
	method := s.service.Methods().ByName(protoreflect.Name(name))
	if method == nil {
		panic("wal.proto has no method " + name)
	}
	return method
}

func build(descriptor protoreflect.MessageDescriptor, values fields) proto.Message {
	message := dynamicpb.NewMessage(descriptor)
	for name, value := range values {
		field := descriptor.Fields().ByName(protoreflect.Name(name))
		if field == nil {
			panic(fmt.Sprintf("%s has no field %s", descriptor.FullName(), name))
		}
		message.Set(field, protoreflect.ValueOf(value))
	}
	return message
}

func get(message *dynamicpb.Message, name string) protoreflect.Value {
	field := message.Descriptor().Fields().ByName(protoreflect.Name(name))
	if field == nil {
		panic(fmt.Sprintf("%s has no field %s", message.Descriptor().FullName(), name))
	}
	return message.Get(field)
}
