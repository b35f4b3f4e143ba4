output "buckets" {
  description = "Bucket names by purpose"
  value       = { for name, bucket in aws_s3_bucket.this : name => bucket.bucket }
}

output "role_arns" {
  description = "For the annotation eks.amazonaws.com/role-arn of the service accounts"
  value       = { for name, role in aws_iam_role.this : name => role.arn }
}
