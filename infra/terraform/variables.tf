variable "region" {
  description = "AWS region of the buckets"
  type        = string
  default     = "eu-central-1"
}

variable "prefix" {
  description = "First part of all names; bucket names are global"
  type        = string
  validation {
    condition     = can(regex("^[a-z0-9][a-z0-9-]{2,30}$", var.prefix))
    error_message = "3 to 31 lower-case letters, digits and hyphens."
  }
}

variable "oidc_provider_arn" {
  description = "OIDC provider of the Kubernetes cluster, for roles of service accounts"
  type        = string
}

variable "oidc_provider_host" {
  description = "Issuer of the OIDC provider without https://"
  type        = string
}

variable "namespace" {
  description = "Kubernetes namespace of the components"
  type        = string
  default     = "mirnet"
}
